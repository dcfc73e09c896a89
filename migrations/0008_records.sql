-- What operators do to dead letters goes into the audit log, and whoever signs checkpoints learns how far that goes.
-- Forward only.

-- How many entries the log has, and the roots of the perfect subtrees that it is made of: all that a checkpoint needs.
CREATE FUNCTION masq.tip(OUT size bigint, OUT peaks bytea[])
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  SELECT h.size, h.peaks FROM masq.audit_head h
$$;

-- Notes that dead letters were deleted, so many of each epoch. `condition` is what was asked for.
CREATE FUNCTION masq.purged(claimed text, condition text, epochs uuid[], letters bigint[]) RETURNS bigint
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  SELECT masq.append('purge', purged.claimed, NULL, NULL, NULL, NULL, NULL,
    format('{"condition": %s, "letters": %s, "deleted": {%s}}', to_json(purged.condition), coalesce(sum(n), 0),
           string_agg(format('"%s": [0, 0, %s]', epoch, n), ', ' ORDER BY epoch)))
  FROM unnest(purged.epochs, purged.letters) AS gone (epoch, n)
$$;

-- Notes that dead letters were replayed into rows. Nothing is deleted by that.
CREATE FUNCTION masq.resolved(claimed text, reason text, letters integer) RETURNS bigint
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  SELECT masq.append('resolve', resolved.claimed, NULL, NULL, resolved.reason, NULL, NULL,
                     format('{"letters": %s}', resolved.letters))
$$;

REVOKE ALL ON FUNCTION masq.tip(), masq.purged(text, text, uuid[], bigint[]), masq.resolved(text, text, integer) FROM PUBLIC;
