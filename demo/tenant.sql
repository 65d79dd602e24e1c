-- One tenant of the demo: the phood_* tables of a production database, filled
-- with the same content whenever it is run with the same variables.
--
-- psql variables: client and client_code (who it is), seed (what differs
-- between tenants), stores and rows_per_day (its size), last_day (the newest
-- of the 45 days), quiet_day (a day on which nobody logged anything, or '').
-- Nothing here is random: "pick" derives every choice from the row's number.

CREATE FUNCTION pick(n bigint, salt integer, choices integer) RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS
	'SELECT ((hashint8extended(n, salt) & 2147483647) % choices)::integer';

CREATE TABLE phood_client (
	id integer PRIMARY KEY,
	code text NOT NULL UNIQUE,
	name text NOT NULL
);
CREATE TABLE phood_region (
	id integer PRIMARY KEY,
	name text NOT NULL
);
CREATE TABLE phood_location (
	id integer PRIMARY KEY,
	name text NOT NULL,
	region_id integer REFERENCES phood_region,
	client_id integer NOT NULL REFERENCES phood_client
);
CREATE TABLE phood_station (
	id integer PRIMARY KEY,
	name text NOT NULL
);
CREATE TABLE phood_actiontaken (
	id integer PRIMARY KEY,
	name text NOT NULL
);
CREATE TABLE phood_actionreason (
	id integer PRIMARY KEY,
	name text NOT NULL
);
CREATE TABLE phood_foodcategory (
	id integer PRIMARY KEY,
	name text NOT NULL
);
CREATE TABLE phood_fooditem (
	id integer PRIMARY KEY,
	name text NOT NULL,
	category_id integer REFERENCES phood_foodcategory,
	average_weight numeric(8,3),
	cost_per_lb numeric(8,4),
	price_per_lb numeric(8,2)
);
CREATE TABLE phood_flag (
	id integer PRIMARY KEY,
	name text NOT NULL
);
CREATE TABLE phood_foodlogsum (
	id integer PRIMARY KEY,
	location_id integer NOT NULL REFERENCES phood_location,
	station_id integer REFERENCES phood_station,
	food_item_id integer NOT NULL REFERENCES phood_fooditem,
	action_taken_id integer REFERENCES phood_actiontaken,
	action_reason_id integer REFERENCES phood_actionreason,
	validation_status text,
	quantity numeric(8,2),
	average_weight numeric(8,3),
	weight numeric(12,3),
	target_weight numeric(8,1),
	cost_per_lb numeric(8,4),
	price_per_lb numeric(8,2),
	logged_time timestamptz NOT NULL
);
CREATE TABLE phood_foodlogsum_flags (
	foodlogsum_id integer NOT NULL REFERENCES phood_foodlogsum,
	flag_id integer NOT NULL REFERENCES phood_flag,
	PRIMARY KEY (foodlogsum_id, flag_id)
);

INSERT INTO phood_client VALUES (1, :'client_code', :'client');
INSERT INTO phood_region VALUES (1, 'North'), (2, 'Süd'), (3, 'Île-de-France'), (4, '関東');
INSERT INTO phood_station VALUES
	(1, 'Grill'), (2, 'Salad bar'), (3, 'Bakery'), (4, 'Hot buffet'), (5, 'Pâtisserie'), (6, '寿司バー');
INSERT INTO phood_actiontaken VALUES
	(1, 'Wasted'), (2, 'Donated'), (3, 'Composted'), (4, 'Sold at discount');
INSERT INTO phood_actionreason VALUES
	(1, 'Expired'), (2, 'Overproduction'), (3, 'Damaged'), (4, 'Guest''s return'), (5, 'Temperature');
INSERT INTO phood_foodcategory VALUES
	(1, 'Meat'), (2, 'Fish'), (3, 'Vegetables'), (4, 'Bread & pastry'), (5, 'Dairy'), (6, 'Soups');
INSERT INTO phood_flag VALUES
	(1, 'allergen'), (2, 'recount'), (3, 'photo'), (4, 'manager ✓');

INSERT INTO phood_location
SELECT n,
	(ARRAY['Harbour', 'Old Town', 'Café Zürich', 'São Paulo', 'Kraków Rynek', 'Malmö', '東京駅', 'Αθήνα'])[1 + (n + :seed) % 8]
	|| ' ' || n,
	nullif(pick(n, :seed, 5), 0),
	1
FROM generate_series(1, :stores) AS n;

INSERT INTO phood_fooditem
SELECT ordinality, item, nullif(category, 0),
	CASE WHEN pick(ordinality, 31, 9) > 0 THEN 0.2 + pick(ordinality, 32, 3000) / 1000.0 END,
	CASE WHEN pick(ordinality, 33, 12) > 0 THEN 0.9 + pick(ordinality, 34, 90000) / 10000.0 END,
	CASE WHEN pick(ordinality, 35, 12) > 0 THEN 3 + pick(ordinality, 36, 1800) / 100.0 END
FROM unnest(
	ARRAY['Roast beef', 'Pulled pork', 'Chicken thighs', 'Bœuf bourguignon', 'Salmon', 'Crème brûlée', 'Jalapeño poppers',
		'Smørrebrød', 'Miso soup', '寿司', 'Gazpacho', 'Caesar salad', 'Roasted carrots', 'Baguette', 'Croissant',
		'Gruyère', 'Tzatziki', 'Borscht (борщ)', 'Chef''s special 🍲', 'Potato "wedges"'],
	ARRAY[1, 1, 1, 1, 2, 5, 3, 4, 6, 2, 6, 3, 3, 4, 4, 5, 5, 6, 0, 3]
) WITH ORDINALITY AS items (item, category, ordinality);

-- Days differ in size by up to a third, stores much more, and noon is busier
-- than the night.
INSERT INTO phood_foodlogsum
SELECT row_number() OVER (ORDER BY day, n),
	1 + least(pick(k, 1, :stores), pick(k, 14, :stores)),
	nullif(pick(k, 2, 7), 0),
	item.id,
	nullif(pick(k, 3, 5), 0),
	CASE WHEN pick(k, 4, 3) > 0 THEN 1 + pick(k, 5, 5) END,
	(ARRAY['validated', 'validated', 'validated', 'pending', 'rejected', '', NULL])[1 + pick(k, 6, 7)],
	quantity,
	item.average_weight,
	round(quantity * coalesce(item.average_weight, 1), 3),
	CASE WHEN pick(k, 8, 4) > 0 THEN 5 + pick(k, 9, 200) / 10.0 END,
	item.cost_per_lb,
	item.price_per_lb,
	(day::timestamp AT TIME ZONE 'UTC')
	+ (pick(k, 10, 43200) + pick(k, 11, 43200)) * interval '1 second' + pick(k, 12, 1000000) * interval '1 microsecond'
FROM (
	SELECT day::date AS day, n, :seed::bigint * 1000000000 + (day::date - :'last_day'::date + 100)::bigint * 1000000 + n AS k
	FROM generate_series(:'last_day'::date - 44, :'last_day'::date, interval '1 day') AS day,
		generate_series(1, :rows_per_day + pick(day::date - :'last_day'::date + 100, :seed, :rows_per_day / 3)) AS n
	WHERE day::date IS DISTINCT FROM nullif(:'quiet_day', '')::date
) AS entry
CROSS JOIN LATERAL (SELECT 1 + pick(k, 7, 120) / 8.0 AS quantity) AS amount
JOIN phood_fooditem AS item ON item.id = 1 + pick(k, 13, 20);

INSERT INTO phood_foodlogsum_flags
SELECT entry.id, flag.id
FROM phood_foodlogsum AS entry
JOIN phood_flag AS flag ON pick(entry.id, 20 + flag.id, 16) = 0;

CREATE INDEX phood_foodlogsum_logged_time_idx ON phood_foodlogsum (logged_time);
DROP FUNCTION pick;
VACUUM ANALYZE;

GRANT SELECT ON ALL TABLES IN SCHEMA public TO readonly_user;
