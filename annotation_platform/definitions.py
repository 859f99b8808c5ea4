"""The composition root: assets, checks, jobs, schedules, sensors, and resources."""

from typing import cast

import dagster as dg

from annotation_platform.settings import read_settings
from assets import (
    checks,
    consensus,
    ingestion,
    jobs,
    labeling,
    prediction,
    release,
    training,
)
from assets.describing import described
from resources.deployments import build_resources
from sensors import alerts as alert_sensors
from sensors import labeling as labeling_sensors
from sensors import landing as landing_sensors
from sensors import releases as release_sensors
from sensors import upkeep

_assets = dg.load_assets_from_modules(
    [
        ingestion,
        prediction,
        labeling,
        consensus,
        release,
        training,
    ]
)
defs = dg.Definitions(
    assets=dg.map_asset_specs(described, cast("list[dg.AssetsDefinition]", _assets)),
    asset_checks=dg.load_asset_checks_from_modules([checks]),
    jobs=[
        jobs.start_round,
        jobs.ask_again,
        jobs.merge_round,
        jobs.release_round,
        jobs.train_model,
        jobs.report_round,
        jobs.verify_versions,
    ],
    schedules=[upkeep.verify_weekly],
    sensors=[
        landing_sensors.new_images_sensor,
        labeling_sensors.labeling_complete_sensor,
        release_sensors.review_complete_sensor,
        release_sensors.new_version_sensor,
        alert_sensors.failure_sensor,
    ],
    resources=build_resources(read_settings()),
)
