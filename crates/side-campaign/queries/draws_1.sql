-- Draws and what proves them beside rules and seed. Facts all of them, never changed, but draw_stream, a counter.
CREATE TABLE draw_stream (
  campaign TEXT NOT NULL,
  stream TEXT NOT NULL,
  next_sequence BIGINT NOT NULL,
  PRIMARY KEY (campaign, stream)
);

-- subject: what it was drawn for, or the ticket that was drawn. detail: JSON, what was concluded.
CREATE TABLE draw (
  campaign TEXT NOT NULL,
  stream TEXT NOT NULL,
  sequence BIGINT NOT NULL,
  subject TEXT NOT NULL,
  low BIGINT NOT NULL,
  high BIGINT NOT NULL,
  value BIGINT NOT NULL,
  at_ms BIGINT NOT NULL,
  detail TEXT NOT NULL,
  PRIMARY KEY (campaign, stream, sequence),
  CHECK (low <= value AND value <= high)
);
CREATE INDEX draw_by_subject ON draw (campaign, subject);

-- Roots of ordered lists: of a deck at publish, of participants at the end.
CREATE TABLE proof_root (
  campaign TEXT NOT NULL,
  list TEXT NOT NULL,
  root TEXT NOT NULL,
  at_ms BIGINT NOT NULL,
  PRIMARY KEY (campaign, list)
);

-- The tickets of a list in their order; shown with the seed, not before.
CREATE TABLE proof_ticket (
  campaign TEXT NOT NULL,
  list TEXT NOT NULL,
  position BIGINT NOT NULL,
  ticket TEXT NOT NULL,
  at_ms BIGINT NOT NULL,
  PRIMARY KEY (campaign, list, position)
);

-- Who won. list: the stream or the board; score: what a board ranks by.
CREATE TABLE winner (
  campaign TEXT NOT NULL,
  list TEXT NOT NULL,
  rank BIGINT NOT NULL,
  buyer TEXT NOT NULL,
  score BIGINT,
  reward TEXT NOT NULL,
  state TEXT NOT NULL,
  stream TEXT,
  sequence BIGINT,
  at_ms BIGINT NOT NULL,
  PRIMARY KEY (campaign, list, rank)
);
CREATE INDEX winner_by_buyer ON winner (buyer, campaign);
