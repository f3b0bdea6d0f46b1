-- Who joined a giveaway, as it was told to him. ticket: SHA-256 of campaign|buyer, what the draw goes by.
CREATE TABLE giveaway_participation (
  campaign TEXT NOT NULL,
  buyer TEXT NOT NULL,
  ticket TEXT NOT NULL,
  joined_at_ms BIGINT NOT NULL,
  is_new BIGINT NOT NULL,
  PRIMARY KEY (campaign, buyer)
);
CREATE UNIQUE INDEX giveaway_participation_in_order ON giveaway_participation (campaign, joined_at_ms, ticket);
CREATE UNIQUE INDEX giveaway_participation_by_ticket ON giveaway_participation (campaign, ticket);

-- What joining gave. state: GIVEN, WAITING, RUN_DRY, DENIED.
CREATE TABLE giveaway_reward (
  campaign TEXT NOT NULL,
  buyer TEXT NOT NULL,
  reward TEXT NOT NULL,
  id TEXT,
  state TEXT NOT NULL,
  at_ms BIGINT NOT NULL,
  PRIMARY KEY (campaign, buyer, reward)
);
CREATE INDEX giveaway_reward_by_time ON giveaway_reward (campaign, reward, at_ms);

-- Budget that is kept for the prizes of a stream: units that are not drawn yet. Its open hold is of this round.
CREATE TABLE giveaway_reserve (
  campaign TEXT NOT NULL,
  stream TEXT NOT NULL,
  each_minor BIGINT NOT NULL,
  units BIGINT NOT NULL,
  round BIGINT NOT NULL,
  PRIMARY KEY (campaign, stream)
);

-- How far the end of a giveaway has come: LIST -> DRAW -> DONE. root: of the tickets listed so far.
CREATE TABLE giveaway_settling (
  campaign TEXT PRIMARY KEY,
  phase TEXT NOT NULL,
  listed BIGINT NOT NULL,
  listed_at_ms BIGINT NOT NULL,
  listed_ticket TEXT NOT NULL,
  root TEXT NOT NULL,
  drawn BIGINT NOT NULL,
  stream_index BIGINT NOT NULL,
  stream_winners BIGINT NOT NULL,
  pieces BIGINT NOT NULL
);

-- Tickets that changed places in the draw; all others stand where they are listed.
CREATE TABLE giveaway_slot (
  campaign TEXT NOT NULL,
  slot BIGINT NOT NULL,
  position BIGINT NOT NULL,
  PRIMARY KEY (campaign, slot)
);
