"""`falaj bench`: what is measured and how it is judged. An area is a list of modules, each with one `measure(quick=, console=)`.

`core` has what they share; contestants of a comparison run in processes of their own. What a figure is compared with belongs here too.
"""
