"""The data of the platform, as Dagster assets. Every one is partitioned by round.

========================  ==========  ==============================================================
asset                     job         what one round of it is
========================  ==========  ==============================================================
``raw_images``            start       the landed objects, by digest, as they came
``cleaned_images``        start       what became of each: accepted, duplicate of which, quarantined
``imported_labels``       start       the labels that images landed with, usable or not and why
``image_embeddings``      start       a vector for each accepted image
``model_predictions``     start       what the promoted model proposes
``batch_drift``           start       how the pictures differ from those that are known
``selected_images``       start       the images worth a person's time
``label_tasks``           start       the places people answer, k for each image
— people —                            answer in Label Studio; labeling_complete_sensor watches
``human_labels``          merge       what they said, from the append-only ledger
``annotator_quality``     merge       how well each of them does
``consensus_labels``      merge       one resolved set of labels for each image
``label_issues``          merge       labels that the proposals contradict
``review_tasks``          merge       what the answers leave open
— reviewers —                         decide, where policy asks them; review_complete_sensor watches
``reviewed_labels``       release     the labels that stand
``auto_labels``           release     proposals that need no person, under a certificate
``training_set``          release     all finished rounds and imported labels, with splits
``error_bars``            release     how many labels are wrong, by audits
``dataset_version``       release     the published version, in git and DVC
``trained_model``         train       the detector, and classifier, that learned from it
``model_evaluation``      train       how good it is, and whether it now proposes
``round_report``          train       the round in one row
========================  ==========  ==============================================================

The jobs are ``start_round``, ``merge_round``, ``release_round`` and ``train_model``: a merge that
leaves nothing to decide goes on to the release in its own run. There is
``ask_again`` where answers are asked for until they agree; the sensors that ask for them are in
``sensors/``. An asset names its data and calls one library function.
"""
