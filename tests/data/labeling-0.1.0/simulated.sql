BEGIN TRANSACTION;
CREATE TABLE annotations (
    annotation INTEGER PRIMARY KEY AUTOINCREMENT,
    backend_task INTEGER NOT NULL REFERENCES copies,
    author TEXT NOT NULL,
    created_at TEXT NOT NULL,
    updated_at TEXT NOT NULL,
    lead_time_seconds REAL NOT NULL,
    skipped INTEGER NOT NULL,
    result TEXT NOT NULL,
    states INTEGER NOT NULL DEFAULT 1
);
INSERT INTO "annotations" VALUES(1,1,'ada','2026-05-01T12:00:00+00:00','2026-05-01T12:00:00+00:00',5.0,0,'[{"id": "box-0", "type": "rectanglelabels", "from_name": "label", "to_name": "image", "original_width": 320, "original_height": 240, "image_rotation": 0, "value": {"x": 3.125, "y": 8.333333333333334, "width": 15.625, "height": 25.0, "rotation": 0, "rectanglelabels": ["boat"]}}]',1);
CREATE TABLE annotators (name TEXT PRIMARY KEY);
INSERT INTO "annotators" VALUES('ada');
INSERT INTO "annotators" VALUES('ben');
CREATE TABLE copies (
    backend_task INTEGER PRIMARY KEY AUTOINCREMENT,
    round_id TEXT NOT NULL REFERENCES rounds,
    task_id TEXT NOT NULL,
    place INTEGER NOT NULL,
    image_id TEXT NOT NULL,
    assignee TEXT NOT NULL,
    image_key TEXT NOT NULL,
    width INTEGER NOT NULL,
    height INTEGER NOT NULL,
    weights_sha256 TEXT NOT NULL,
    proposed TEXT NOT NULL,
    purpose TEXT NOT NULL,
    blind INTEGER NOT NULL,
    expertise TEXT NOT NULL,
    note TEXT NOT NULL,
    UNIQUE (round_id, task_id, place)
);
INSERT INTO "copies" VALUES(1,'round-0002','round-0001/labels/b6864edf273b0d661bfc9b47fff2a0f5e2e9e6d7bb76c8e0fa871eb76b14b23d',1,'b6864edf273b0d661bfc9b47fff2a0f5e2e9e6d7bb76c8e0fa871eb76b14b23d','ada','images/b6864edf273b0d661bfc9b47fff2a0f5e2e9e6d7bb76c8e0fa871eb76b14b23d.jpg',320,240,'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa','[{"id": "box-0", "type": "rectanglelabels", "from_name": "label", "to_name": "image", "original_width": 320, "original_height": 240, "image_rotation": 0, "value": {"x": 3.125, "y": 8.333333333333334, "width": 15.625, "height": 25.0, "rotation": 0, "rectanglelabels": ["boat"]}, "score": 0.9}]','label',0,'','');
INSERT INTO "copies" VALUES(2,'round-0002','round-0001/labels/b6864edf273b0d661bfc9b47fff2a0f5e2e9e6d7bb76c8e0fa871eb76b14b23d',2,'b6864edf273b0d661bfc9b47fff2a0f5e2e9e6d7bb76c8e0fa871eb76b14b23d','ben','images/b6864edf273b0d661bfc9b47fff2a0f5e2e9e6d7bb76c8e0fa871eb76b14b23d.jpg',320,240,'','[]','label',1,'','');
INSERT INTO "copies" VALUES(3,'round-0002','round-0001/labels/2dabd364013897cccceb7b1526cffb689610f8202cff6b4a8c387525982ad437',1,'2dabd364013897cccceb7b1526cffb689610f8202cff6b4a8c387525982ad437','ada','images/2dabd364013897cccceb7b1526cffb689610f8202cff6b4a8c387525982ad437.jpg',320,240,'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa','[{"id": "box-0", "type": "rectanglelabels", "from_name": "label", "to_name": "image", "original_width": 320, "original_height": 240, "image_rotation": 0, "value": {"x": 3.125, "y": 8.333333333333334, "width": 15.625, "height": 25.0, "rotation": 0, "rectanglelabels": ["boat"]}, "score": 0.9}]','label',0,'','');
INSERT INTO "copies" VALUES(4,'round-0002','round-0001/labels/2dabd364013897cccceb7b1526cffb689610f8202cff6b4a8c387525982ad437',2,'2dabd364013897cccceb7b1526cffb689610f8202cff6b4a8c387525982ad437','ben','images/2dabd364013897cccceb7b1526cffb689610f8202cff6b4a8c387525982ad437.jpg',320,240,'','[]','label',1,'','');
INSERT INTO "copies" VALUES(5,'round-0002','round-0001/labels/44f53bd737577450478c9be340f9bc77938f17c3df08ccdaf99144425dce9412',1,'44f53bd737577450478c9be340f9bc77938f17c3df08ccdaf99144425dce9412','ada','images/44f53bd737577450478c9be340f9bc77938f17c3df08ccdaf99144425dce9412.jpg',320,240,'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa','[{"id": "box-0", "type": "rectanglelabels", "from_name": "label", "to_name": "image", "original_width": 320, "original_height": 240, "image_rotation": 0, "value": {"x": 3.125, "y": 8.333333333333334, "width": 15.625, "height": 25.0, "rotation": 0, "rectanglelabels": ["boat"]}, "score": 0.9}]','label',0,'','');
INSERT INTO "copies" VALUES(6,'round-0002','round-0001/labels/44f53bd737577450478c9be340f9bc77938f17c3df08ccdaf99144425dce9412',2,'44f53bd737577450478c9be340f9bc77938f17c3df08ccdaf99144425dce9412','ben','images/44f53bd737577450478c9be340f9bc77938f17c3df08ccdaf99144425dce9412.jpg',320,240,'','[]','label',1,'','');
CREATE TABLE rounds (round_id TEXT PRIMARY KEY, ontology TEXT NOT NULL);
INSERT INTO "rounds" VALUES('round-0002','{"classes":[{"id":0,"name":"boat","was":[],"shape":"box","color":""},{"id":1,"name":"Seezeichen, „7“","was":[],"shape":"box","color":""}],"choose":"one","guidelines":"Draw a tight box around every object and choose its class.","retired":[]}');
CREATE INDEX annotations_of_a_task ON annotations (backend_task);
CREATE INDEX copies_of_a_task ON copies (task_id);
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('copies',6);
INSERT INTO "sqlite_sequence" VALUES('annotations',1);
COMMIT;
