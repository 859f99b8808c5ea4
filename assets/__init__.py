"""The data of the platform as Dagster assets: one for each table, partitioned by round.

Each row is a step, the only writer of the tables in its first column.

=====================================  ==========  =================================================
tables                                 job         contents for one round
=====================================  ==========  =================================================
``raw_images``                         start       the arrivals, unchanged, by digest
``cleaned_images``                     start       accepted, duplicate or quarantined
``imported_labels``                    start       labels that images landed with, or the refusal
``image_embeddings``                   start       a vector for each accepted image
``model_predictions`` with             start       what the promoted model outputs,
``predicted_images``                               and the images it predicted
``batch_drift`` with                   start       how the images differ from known ones, with
``outlier_images``,                                predictions for images that no model was
``held_out_predictions``,                          trained on
``held_out_images``
``selected_images`` with               start       the images that are annotated, and the pool of
``calibration_frame``                              their random sample
``label_tasks``                        start       the assignments, k for each image
— annotators —                                     observed by labeling_complete_sensor
``human_labels`` with                  merge       the labels of annotations that count, all
``annotations``, ``round_tasks``                   annotations, and the state of each task
``annotator_quality`` with             merge       the quality and pace of each annotator
``annotator_pace``
``consensus_labels`` with              merge       one resolved set of labels for each image, and
``conflicts``                                      the conflicts between annotators
``label_issues``                       merge       labels that the predictions contradict
``review_tasks``                       merge       the images that annotations leave open
— reviewers —                                      if the policy has them; review_complete_sensor
``reviewed_labels``                    release     the labels that count
``auto_labels`` with                   release     predictions that need no person, under a
``certificates``,                                  certificate, and later tests of certificates
``certificate_rechecks``
``training_set`` with                  release     all finished rounds and imported labels, with
``training_rounds``, ``splits``                    their digests and the permanent splits
``error_bars``                         release     the share of wrong labels, by review samples
``dataset_version``                    release     the published version, in git and DVC
``trained_model``                      train       the trained detector and classifier
``model_evaluation`` with              train       their quality, whether they are promoted, and
``model_slices``, ``model_errors``,                where they fail
``missed_by_model``,
``classification_figures``,
``model_agreement``
``round_report``                       train       the round in one row
=====================================  ==========  =================================================

The jobs are ``start_round``, ``merge_round``, ``release_round`` and ``train_model``: a merge that
leaves no open decision continues with the release in its own run. ``ask_again`` requests further
annotations where annotators do not agree. The sensors that request runs are in ``sensors/``.

An asset calls one use case of ``annotation_platform/pipeline/``, and passes its tables to the IO
manager and its figures to ``metadata.py``. A table of the same round that a step reads is an edge.
A table of an earlier round is not an edge if it belongs to a later stage: splits for
``label_tasks``, the last training set for ``label_issues``, the labels of all rounds for the
selection.
"""
