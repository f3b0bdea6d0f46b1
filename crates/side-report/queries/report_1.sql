-- Daily reports: a version is never overwritten; the figures are those of one reading, the hash is over them.
CREATE TABLE daily_report (
  campaign TEXT NOT NULL,
  date TEXT NOT NULL,
  version BIGINT NOT NULL,
  watermark_ms BIGINT NOT NULL,
  hash TEXT NOT NULL,
  figures TEXT NOT NULL,
  made_at_ms BIGINT NOT NULL,
  PRIMARY KEY (campaign, date, version)
);

-- What people write beside a report, for the next day.
CREATE TABLE report_note (
  id SERIAL_KEY,
  campaign TEXT NOT NULL,
  date TEXT NOT NULL,
  who TEXT NOT NULL,
  text TEXT NOT NULL,
  at_ms BIGINT NOT NULL
);
CREATE INDEX report_note_by_day ON report_note (campaign, date, id);
