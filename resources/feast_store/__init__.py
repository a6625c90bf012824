"""Feast as the feature store: our Delta source, offline store, online store and registry file behind its extension interface.

`FeastFeatureStore` is the way in and costs nothing to import; the modules that Feast itself loads (`source`, `offline`, `online`,
`registry`) import Feast, about 6 CPU seconds, and are named to it by their dotted paths.
"""

from resources.feast_store.store import FeastFeatureStore

__all__ = ["FeastFeatureStore"]
