"""The data of the platform, as Dagster assets: one for each table, partitioned by round.

Each row is a step; it makes the tables in its first column, and nothing else writes them.

=====================================  ==========  =================================================
tables                                 job         what one round of them is
=====================================  ==========  =================================================
``raw_images``                         start       the landed objects, by digest, as they came
``cleaned_images``                     start       accepted, duplicate or quarantined
``imported_labels``                    start       labels that images landed with, and why refused
``image_embeddings``                   start       a vector for each accepted image
``model_predictions`` with             start       what the promoted model outputs,
``predicted_images``                               and the images it was run on
``batch_drift`` with ``odd_images``,   start       how the images differ from known ones, with
``held_out_predictions``,                          predictions for images that no model learned
``held_out_images``                                from
``selected_images`` with               start       the images that are annotated, and the pool of
``audit_frame``                                    their random sample
``label_tasks``                        start       the assignments, k for each image
— annotators —                                     labeling_complete_sensor watches
``human_labels`` with ``answers``,     merge       the labels of annotations that count, all
``round_tasks``                                    annotations, and the state of each task
``annotator_quality`` with             merge       how well each annotator does, and how fast
``annotator_pace``
``consensus_labels`` with              merge       one resolved set of labels for each image, and
``conflicts``                                      what annotators disagree about
``label_issues``                       merge       labels that the predictions contradict
``review_tasks``                       merge       the images that annotations leave open
— reviewers —                                      where policy asks them; review_complete_sensor
``reviewed_labels``                    release     the labels that count
``auto_labels`` with                   release     predictions that need no person, under a
``certificates``, ``reaudits``                     certificate, and how certificates fare since
``training_set`` with                  release     all finished rounds and imported labels, with
``training_rounds``, ``splits``                    their digests and the splits drawn for good
``error_bars``                         release     how many labels are wrong, by review samples
``dataset_version``                    release     the published version, in git and DVC
``trained_model``                      train       the detector, and classifier, that learned
``model_evaluation`` with              train       how good they are, whether they are promoted,
``model_slices``, ``model_findings``,              and where they fail
``missed_by_model``,
``choice_figures``,
``model_agreement``
``round_report``                       train       the round in one row
=====================================  ==========  =================================================

The jobs are ``start_round``, ``merge_round``, ``release_round`` and ``train_model``: a merge that
leaves nothing to decide goes on to the release in its own run. There is ``ask_again`` where
annotations are asked for until they agree; the sensors that request runs are in ``sensors/``.

An asset calls one use case of ``annotation_platform/pipeline/`` and hands its tables to the IO
manager and its figures to ``metadata.py``. What a step reads of its round is an edge. What it reads
of earlier rounds is none where that is of a later stage: splits for ``label_tasks``, the last
training set for ``label_issues``, the labels of all rounds for the selection.
"""
