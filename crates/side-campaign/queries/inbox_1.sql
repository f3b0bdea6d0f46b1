-- Up to where the engine's events are applied: one row, moved in the transaction of what they bring about.
-- event_id is empty before the first one.
CREATE TABLE inbox (
  source TEXT PRIMARY KEY,
  event_id TEXT NOT NULL,
  at_ms BIGINT NOT NULL
);
INSERT INTO inbox (source, event_id, at_ms) VALUES ('engine', '', 0);

-- How far each reservation is known to have gone: waiting -> closed, never back. It stands in for the ids of applied
-- events: an event that comes twice, or late, finds that nothing is left for it to do. expires_at_ms only grows.
CREATE TABLE inbox_reservation (
  id TEXT PRIMARY KEY,
  stage TEXT NOT NULL,
  expires_at_ms BIGINT NOT NULL,
  CHECK (stage IN ('waiting', 'closed'))
);
