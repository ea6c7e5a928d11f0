-- The decision log as two views, for DuckDB. Say first where the files are:
--
--   SET VARIABLE decision_log = '.yardarm/decisions/**/*.ndjson';
--   .read deploy/sql/views.sql
--
-- A line that is half written, or none of ours, is passed over (ignore_errors).

-- One line for each evaluation that was kept: the same person with the same answer once in ten minutes and pod.
CREATE OR REPLACE VIEW feature_flag_logs AS
SELECT "time", flag AS feature, variant, enabled, "key" AS user_id, path, revision, reason, pod
FROM read_json(
    getvariable('decision_log'), format = 'newline_delimited', ignore_errors = true,
    columns = {
        "time": 'TIMESTAMPTZ', kind: 'VARCHAR', flag: 'VARCHAR', variant: 'VARCHAR', enabled: 'BOOLEAN', "key": 'VARCHAR',
        path: 'VARCHAR', revision: 'UBIGINT', reason: 'VARCHAR', pod: 'VARCHAR'
    }
)
WHERE kind = 'evaluation';

-- What became of it: every outcome that was told, and every evaluation that failed.
CREATE OR REPLACE VIEW logs AS
SELECT "time", flag AS feature, variant, enabled, coalesce(error, errorCode IS NOT NULL) AS error
FROM read_json(
    getvariable('decision_log'), format = 'newline_delimited', ignore_errors = true,
    columns = {
        "time": 'TIMESTAMPTZ', kind: 'VARCHAR', flag: 'VARCHAR', variant: 'VARCHAR', enabled: 'BOOLEAN', errorCode: 'VARCHAR',
        error: 'BOOLEAN'
    }
)
WHERE kind = 'outcome' OR (kind = 'evaluation' AND errorCode IS NOT NULL);
