"""The tables, and how a file written by an older Lyceum becomes one of this version. Append scripts, change none."""

SCHEMA = (
    """
    CREATE TABLE tokens (
        token_id TEXT PRIMARY KEY,
        payment_hash TEXT NOT NULL UNIQUE,
        service TEXT NOT NULL,
        credit_msat INTEGER NOT NULL,
        spent_msat INTEGER NOT NULL DEFAULT 0,
        reserved_msat INTEGER NOT NULL DEFAULT 0,
        created_at INTEGER NOT NULL,
        expires_at INTEGER NOT NULL,
        CHECK (spent_msat >= 0 AND reserved_msat >= 0 AND spent_msat + reserved_msat <= credit_msat)
    ) STRICT;
    CREATE TABLE revocations (token_id TEXT PRIMARY KEY, revoked_at INTEGER NOT NULL) STRICT;
    CREATE TABLE reservations (
        reservation TEXT PRIMARY KEY,
        token_id TEXT NOT NULL REFERENCES tokens,
        amount_msat INTEGER NOT NULL,
        until INTEGER NOT NULL,
        charged_msat INTEGER,
        settled_at INTEGER
    ) STRICT;
    CREATE INDEX open_reservations ON reservations (token_id, until) WHERE settled_at IS NULL;
    CREATE TABLE purchases (
        payment_hash TEXT PRIMARY KEY,
        origin TEXT NOT NULL,
        purpose TEXT NOT NULL,
        bolt11 TEXT NOT NULL,
        amount_msat INTEGER NOT NULL,
        fee_cap_msat INTEGER NOT NULL,
        created_at INTEGER NOT NULL,
        macaroon TEXT NOT NULL,
        outcome TEXT NOT NULL,
        preimage TEXT NOT NULL DEFAULT '',
        fee_msat INTEGER NOT NULL DEFAULT 0,
        usable INTEGER NOT NULL DEFAULT 1
    ) STRICT;
    CREATE INDEX kept_purchases ON purchases (origin, created_at) WHERE outcome = 'settled' AND usable;
    """,
    """
    ALTER TABLE purchases ADD COLUMN payee TEXT NOT NULL DEFAULT '';
    ALTER TABLE purchases ADD COLUMN model TEXT NOT NULL DEFAULT '';
    CREATE INDEX open_purchases ON purchases (created_at) WHERE outcome IN ('pending', 'unknown');
    CREATE INDEX settled_purchases ON purchases (created_at) WHERE outcome = 'settled';
    """,
    """
    ALTER TABLE purchases ADD COLUMN service TEXT NOT NULL DEFAULT '';
    ALTER TABLE purchases ADD COLUMN balance_msat INTEGER CHECK (balance_msat >= 0);
    DROP INDEX kept_purchases;
    CREATE INDEX kept_purchases ON purchases (origin, created_at)
        WHERE outcome = 'settled' AND usable AND COALESCE(balance_msat, amount_msat) > 0;
    """,
    """
    CREATE TABLE deliveries (
        number INTEGER PRIMARY KEY,
        delivered_at INTEGER NOT NULL,
        origin TEXT NOT NULL,
        model TEXT NOT NULL,
        purpose TEXT NOT NULL,
        payment_hash TEXT NOT NULL,
        input_tokens INTEGER NOT NULL,
        output_tokens INTEGER NOT NULL,
        input_chars INTEGER NOT NULL,
        output_chars INTEGER NOT NULL,
        charged_msat INTEGER NOT NULL,
        recounted_msat INTEGER NOT NULL,
        complaint TEXT NOT NULL,
        error TEXT NOT NULL
    ) STRICT;
    CREATE INDEX deliveries_by_time ON deliveries (delivered_at);
    CREATE TABLE distrusted (origin TEXT PRIMARY KEY, since INTEGER NOT NULL, complaint TEXT NOT NULL) STRICT;
    """,
    """
    ALTER TABLE tokens ADD COLUMN refunded_msat INTEGER NOT NULL DEFAULT 0
        CHECK (refunded_msat >= 0 AND spent_msat + reserved_msat + refunded_msat <= credit_msat);
    ALTER TABLE tokens ADD COLUMN closed_at INTEGER;
    CREATE INDEX answers ON reservations (token_id, settled_at) WHERE settled_at IS NOT NULL;
    CREATE TABLE topups (
        payment_hash TEXT PRIMARY KEY,
        token_id TEXT NOT NULL REFERENCES tokens,
        bolt11 TEXT NOT NULL,
        amount_msat INTEGER NOT NULL,
        created_at INTEGER NOT NULL,
        expires_at INTEGER NOT NULL,
        received_msat INTEGER,
        credited_at INTEGER
    ) STRICT;
    CREATE INDEX topups_of_token ON topups (token_id, created_at);
    CREATE INDEX open_topups ON topups (token_id) WHERE credited_at IS NULL;
    CREATE TABLE refunds (
        token_id TEXT PRIMARY KEY REFERENCES tokens,
        address TEXT NOT NULL,
        claimed_at INTEGER NOT NULL,
        state TEXT NOT NULL,
        next_at INTEGER NOT NULL,
        tries INTEGER NOT NULL DEFAULT 0,
        detail TEXT NOT NULL DEFAULT ''
    ) STRICT;
    CREATE INDEX owed_refunds ON refunds (next_at) WHERE state = 'owed';
    CREATE TABLE payouts (
        number INTEGER PRIMARY KEY,
        token_id TEXT NOT NULL REFERENCES refunds,
        payment_hash TEXT NOT NULL,
        invoice TEXT NOT NULL,
        amount_msat INTEGER NOT NULL,
        fee_cap_msat INTEGER NOT NULL,
        created_at INTEGER NOT NULL,
        outcome TEXT NOT NULL,
        fee_msat INTEGER NOT NULL DEFAULT 0
    ) STRICT;
    CREATE INDEX payouts_of_token ON payouts (token_id);
    CREATE INDEX payouts_by_hash ON payouts (payment_hash);
    CREATE UNIQUE INDEX open_payout ON payouts (token_id) WHERE outcome IN ('pending', 'unknown');
    """,
    """
    CREATE TABLE freebies (
        service TEXT NOT NULL,
        client TEXT NOT NULL,
        used INTEGER NOT NULL,
        PRIMARY KEY (service, client)
    ) STRICT, WITHOUT ROWID;
    """,
)
"""One script a schema version; `PRAGMA user_version` counts those that were applied."""
