-- The ledger, version 2: how prompts begin, by fingerprints that only the process that made them can make again. NULL where
-- that is not known, or where nobody was asked.
ALTER TABLE calls ADD COLUMN prefixes BLOB;
