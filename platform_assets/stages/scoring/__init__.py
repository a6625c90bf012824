"""Many rows at once through a released graph, in this process. Answering requests is serving's; judging answers is evaluation's."""
