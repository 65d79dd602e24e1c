# All that the catalogs say of an extension, as text that is the same in two
# databases when the extension is: no OIDs, nothing of the data, and nothing of
# relations that are in schema _wh but no members, as the trees of templates are.
package WhCatalog;

use strict;
use warnings;

use Exporter 'import';
use JSON::PP;

our @EXPORT = qw(extension_catalog catalog_differences);

# Rows of what and how; rights are lines of their own. pg_attver is a count of changes
# that some minor releases keep with a column.
my $query = q{
	SET search_path = pg_catalog, pg_temp;
	CREATE FUNCTION pg_temp.rights(acl aclitem[]) RETURNS text LANGUAGE sql AS $$
		SELECT E'\n' || string_agg(format('%s from %s: %s%s', CASE grantee WHEN 0 THEN 'PUBLIC' ELSE pg_get_userbyid(grantee) END,
			pg_get_userbyid(grantor), privilege_type, CASE WHEN is_grantable THEN ' WITH GRANT OPTION' END), E'\n' ORDER BY grantee::regrole::text, grantor::regrole::text, privilege_type)
		FROM aclexplode(acl) $$;
	CREATE TEMP TABLE member AS
		SELECT d.classid, d.objid, e.oid AS extension
		FROM pg_depend d JOIN pg_extension e ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid
		WHERE e.extname = 'wh_worker' AND d.deptype = 'e';
	CREATE TEMP TABLE relation AS
		SELECT c.*, format('relation %I.%I', n.nspname, c.relname) AS what
		FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE c.oid IN (SELECT objid FROM member WHERE classid = 'pg_class'::regclass);
	CREATE TEMP TABLE fact (what text, how text);

	-- what belongs to it, of any kind; what has comments, and at its parts
	INSERT INTO fact SELECT 'member ' || pg_describe_object(classid, objid, 0), pg_temp.rights(p.initprivs) || coalesce(' ' || p.privtype::text, '')
		FROM member m LEFT JOIN pg_init_privs p ON (p.classoid, p.objoid, p.objsubid) = (m.classid, m.objid, 0);
	INSERT INTO fact SELECT 'initial rights on ' || pg_describe_object(p.classoid, p.objoid, p.objsubid), pg_temp.rights(p.initprivs)
		FROM member m JOIN pg_init_privs p ON (p.classoid, p.objoid) = (m.classid, m.objid) WHERE p.objsubid <> 0;
	INSERT INTO fact SELECT 'comment on ' || pg_describe_object(d.classoid, d.objoid, d.objsubid), d.description
		FROM pg_description d
		WHERE (d.classoid, d.objoid) IN (SELECT classid, objid FROM member)
		OR d.classoid = 'pg_extension'::regclass AND d.objoid IN (SELECT extension FROM member)
		OR d.classoid = 'pg_namespace'::regclass AND d.objoid = '_wh'::regnamespace
		OR d.classoid = 'pg_constraint'::regclass AND d.objoid IN (SELECT k.oid FROM pg_constraint k JOIN relation r ON r.oid = k.conrelid)
		OR d.classoid = 'pg_trigger'::regclass AND d.objoid IN (SELECT t.oid FROM pg_trigger t JOIN relation r ON r.oid = t.tgrelid)
		OR d.classoid = 'pg_rewrite'::regclass AND d.objoid IN (SELECT w.oid FROM pg_rewrite w JOIN relation r ON r.oid = w.ev_class)
		OR d.classoid = 'pg_policy'::regclass AND d.objoid IN (SELECT p.oid FROM pg_policy p JOIN relation r ON r.oid = p.polrelid)
		OR d.classoid = 'pg_class'::regclass AND d.objoid IN (SELECT i.indexrelid FROM pg_index i JOIN relation r ON r.oid = i.indrelid);

	INSERT INTO fact SELECT 'extension', concat_ws(', ', e.extversion, e.extrelocatable, e.extnamespace::regnamespace, pg_get_userbyid(e.extowner))
		FROM pg_extension e WHERE e.extname = 'wh_worker';
	INSERT INTO fact SELECT 'dumped rows of ' || t.config::regclass, t.condition
		FROM pg_extension e, unnest(e.extconfig, e.extcondition) AS t (config, condition) WHERE e.extname = 'wh_worker';
	INSERT INTO fact SELECT 'schema ' || n.nspname, concat_ws(', ', pg_get_userbyid(n.nspowner), pg_temp.rights(n.nspacl))
		FROM pg_namespace n WHERE n.nspname = '_wh';

	INSERT INTO fact SELECT 'function ' || p.oid::regprocedure,
			concat_ws(E'\n', pg_get_functiondef(p.oid), pg_get_userbyid(p.proowner), pg_temp.rights(p.proacl))
		FROM pg_proc p WHERE p.oid IN (SELECT objid FROM member WHERE classid = 'pg_proc'::regclass);

	INSERT INTO fact SELECT what, concat_ws(', ', relkind, relpersistence, relrowsecurity, relforcerowsecurity, relreplident, reloptions,
			(SELECT t.reloptions FROM pg_class t WHERE t.oid = reltoastrelid AND relkind <> 'p'), reltablespace,
			pg_get_userbyid(relowner), pg_temp.rights(relacl), CASE WHEN relkind IN ('v', 'm') THEN pg_get_viewdef(oid) END)
		FROM relation;
	INSERT INTO fact SELECT format('%s column %s', what, row_number() OVER (PARTITION BY r.oid ORDER BY a.attnum)),
			concat_ws(', ', a.attname, format_type(a.atttypid, a.atttypmod), a.attcollation::regcollation, a.attnotnull, 'identity ' || a.attidentity::text,
				'generated ' || a.attgenerated::text, a.attstorage, a.attcompression, a.attstattarget, ARRAY(SELECT o FROM unnest(a.attoptions) o WHERE o NOT LIKE 'pg\_attver=%'), pg_get_expr(d.adbin, d.adrelid), pg_temp.rights(a.attacl))
		FROM relation r JOIN pg_attribute a ON a.attrelid = r.oid AND a.attnum > 0 AND NOT a.attisdropped
		LEFT JOIN pg_attrdef d ON (d.adrelid, d.adnum) = (a.attrelid, a.attnum);
	INSERT INTO fact SELECT format('%s constraint %s', what, k.conname),
			concat_ws(', ', pg_get_constraintdef(k.oid), k.convalidated, k.condeferrable, k.condeferred, k.connoinherit)
		FROM relation r JOIN pg_constraint k ON k.conrelid = r.oid;
	INSERT INTO fact SELECT format('%s index %s', what, c.relname),
			concat_ws(', ', pg_get_indexdef(i.indexrelid), i.indisvalid, i.indisclustered, i.indisreplident, c.reltablespace, pg_get_userbyid(c.relowner))
		FROM relation r JOIN pg_index i ON i.indrelid = r.oid JOIN pg_class c ON c.oid = i.indexrelid;
	INSERT INTO fact SELECT format('%s trigger %s', what, t.tgname), concat_ws(', ', pg_get_triggerdef(t.oid), t.tgenabled)
		FROM relation r JOIN pg_trigger t ON t.tgrelid = r.oid WHERE NOT t.tgisinternal;
	INSERT INTO fact SELECT format('%s rule %s', what, w.rulename), concat_ws(', ', pg_get_ruledef(w.oid), w.ev_enabled)
		FROM relation r JOIN pg_rewrite w ON w.ev_class = r.oid WHERE w.rulename <> '_RETURN';
	INSERT INTO fact SELECT format('%s policy %s', what, p.polname), concat_ws(', ', p.polcmd, p.polpermissive, p.polroles::regrole[],
			pg_get_expr(p.polqual, p.polrelid), pg_get_expr(p.polwithcheck, p.polrelid))
		FROM relation r JOIN pg_policy p ON p.polrelid = r.oid;
	INSERT INTO fact SELECT format('%s sequence', what), concat_ws(', ', s.seqtypid::regtype, s.seqstart, s.seqincrement, s.seqmax, s.seqmin, s.seqcache, s.seqcycle,
			pg_get_serial_sequence((SELECT refobjid::regclass::text FROM pg_depend WHERE objid = r.oid AND deptype = 'i' AND refobjsubid > 0),
				(SELECT attname FROM pg_depend JOIN pg_attribute ON attrelid = refobjid AND attnum = refobjsubid WHERE objid = r.oid AND deptype = 'i' AND refobjsubid > 0)))
		FROM relation r JOIN pg_sequence s ON s.seqrelid = r.oid;
	INSERT INTO fact SELECT format('%s statistics %s', what, s.stxname), pg_get_statisticsobjdef(s.oid)
		FROM relation r JOIN pg_statistic_ext s ON s.stxrelid = r.oid;

	-- arrays are as their elements; from 17 on the row types of relations are members too
	INSERT INTO fact SELECT 'type ' || t.oid::regtype, concat_ws(', ', t.typtype, pg_get_userbyid(t.typowner), pg_temp.rights(t.typacl), format_type(t.typbasetype, t.typtypmod), t.typnotnull, t.typdefault,
			(SELECT string_agg(enumlabel, ' ' ORDER BY enumsortorder) FROM pg_enum WHERE enumtypid = t.oid),
			(SELECT string_agg(pg_get_constraintdef(k.oid), ' ' ORDER BY conname) FROM pg_constraint k WHERE contypid = t.oid))
		FROM pg_type t WHERE t.oid IN (SELECT objid FROM member WHERE classid = 'pg_type'::regclass)
		AND coalesce((SELECT relkind FROM pg_class c WHERE c.oid = t.typrelid), 'c') = 'c'
		AND NOT EXISTS (SELECT FROM pg_type e WHERE e.typarray = t.oid);

	SELECT json_agg(json_build_array(what, coalesce(how, '')) ORDER BY what COLLATE "C", how COLLATE "C") FROM fact;
};

# A hash of how by what, of an extension in a database.
sub extension_catalog
{
	my ($node, $database) = @_;
	my $facts = decode_json($node->safe_psql($database, "SET client_min_messages = warning;\nSET client_encoding = 'UTF8';\n$query"));
	my %catalog;

	foreach my $fact (@$facts)
	{
		die "$fact->[0] is there twice" if exists $catalog{ $fact->[0] };
		$catalog{ $fact->[0] } = $fact->[1];
	}
	return \%catalog;
}

# What one catalog has and the other has not, or not so, to be read by people.
sub catalog_differences
{
	my ($name, $catalog, $other_name, $other) = @_;
	my @differences;

	foreach my $what (sort keys %{ { %$catalog, %$other } })
	{
		next if exists $catalog->{$what} && exists $other->{$what} && $catalog->{$what} eq $other->{$what};
		push @differences, "$what\n"
		  . join "\n", map { "$_->[0]: " . ($_->[1]{$what} // 'is not there') } [ $name, $catalog ], [ $other_name, $other ];
	}
	return @differences;
}

1;
