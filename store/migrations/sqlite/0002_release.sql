-- The date of the last hold that was released, so that a list that still shows it can be told from one
-- that knows more than the books.
ALTER TABLE certificate ADD COLUMN released_hold INTEGER NOT NULL DEFAULT 0;
