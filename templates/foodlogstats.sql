-- Template "foodlogstats": what every store threw away, sold or gave away, one
-- row an entry of the food log, with its look-ups resolved to names.
--
-- Load it with psql into a database that has the extension:
--     \i templates/foodlogstats.sql
-- Loading it again changes nothing; loading an edited copy makes a new version.
--
-- The day is a UTC day.  It is asked for as a range of logged_time, which is
-- (pf.logged_time AT TIME ZONE 'UTC')::date = '{TARGET_DATE}'::date said in a
-- way that an ordinary index on logged_time answers.

INSERT INTO _wh.mv_templates (template_name, description, query_template, column_definitions, indexes)
VALUES (
'foodlogstats',
'Food log entries with store, station, item, weights, costs and flags',
$query$
SELECT pf.id,
       pl.name AS store,
       st.name AS station,
       pf.validation_status,
       rg.name AS region,
       pf.action_taken_id,
       act.name AS action_taken,
       fi.name,
       pf.quantity,
       pf.average_weight,
       pf.weight,
       cl.name AS client,
       cat.name AS food_category,
       pf.cost_per_lb,
       pf.target_weight,
       pf.price_per_lb,
       rea.name AS action_reason,
       cl.code AS client_id,
       pf.logged_time AT TIME ZONE 'UTC' AS logged_time,
       flagged.flags
FROM phood_foodlogsum pf
LEFT JOIN phood_location pl ON pl.id = pf.location_id
LEFT JOIN phood_region rg ON rg.id = pl.region_id
LEFT JOIN phood_client cl ON cl.id = pl.client_id
LEFT JOIN phood_station st ON st.id = pf.station_id
LEFT JOIN phood_actiontaken act ON act.id = pf.action_taken_id
LEFT JOIN phood_actionreason rea ON rea.id = pf.action_reason_id
LEFT JOIN phood_fooditem fi ON fi.id = pf.food_item_id
LEFT JOIN phood_foodcategory cat ON cat.id = fi.category_id
LEFT JOIN LATERAL (
    SELECT string_agg(fl.name, ', ' ORDER BY fl.id) AS flags
    FROM phood_foodlogsum_flags pff
    JOIN phood_flag fl ON fl.id = pff.flag_id
    WHERE pff.foodlogsum_id = pf.id
) flagged ON true
WHERE pf.logged_time >= '{TARGET_DATE}'::date::timestamp AT TIME ZONE 'UTC'
  AND pf.logged_time < ('{TARGET_DATE}'::date + 1)::timestamp AT TIME ZONE 'UTC'
$query$,
$columns$
id INTEGER,
store TEXT,
station TEXT,
validation_status TEXT,
region TEXT,
action_taken_id INTEGER,
action_taken TEXT,
name TEXT,
quantity NUMERIC,
average_weight NUMERIC,
weight NUMERIC,
client TEXT,
food_category TEXT,
cost_per_lb NUMERIC,
target_weight NUMERIC,
price_per_lb NUMERIC,
action_reason TEXT,
client_id TEXT,
logged_time TIMESTAMP,
flags TEXT
$columns$,
$indexes$
CREATE UNIQUE INDEX idx_{schema}_{view_name}_id ON {schema}.{view_name} (id);
CREATE INDEX idx_{schema}_{view_name}_logged_time ON {schema}.{view_name} (logged_time);
CREATE INDEX idx_{schema}_{view_name}_store ON {schema}.{view_name} (store)
$indexes$
)
ON CONFLICT (template_name) DO UPDATE
SET description = excluded.description,
    query_template = excluded.query_template,
    column_definitions = excluded.column_definitions,
    indexes = excluded.indexes
-- An UPDATE that changes nothing is not made, so that updated_at stays true.
WHERE (mv_templates.description, mv_templates.query_template,
       mv_templates.column_definitions, mv_templates.indexes)
      IS DISTINCT FROM
      (excluded.description, excluded.query_template,
       excluded.column_definitions, excluded.indexes);
