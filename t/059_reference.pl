# The reference in docs/ is what the database says of itself: every object, column
# and setting has a comment, and what is written between the lines of ci/reference
# is those comments. Links within the docs lead somewhere.
use strict;
use warnings;

use File::Path qw(make_path);
use JSON::PP;
use PostgreSQL::Test::Utils qw(slurp_file);
use Test::More;
use WhTest;

my $node = new_warehouse(conf => { 'wh_worker.enabled' => 'off' });
my $root = source_root();
my $dir = PostgreSQL::Test::Utils::tempdir();

# What ci/reference says of a catalog and a tree, and whether all was well.
sub reference
{
	my ($name, $tree, @options) = @_;
	my $file = "$dir/$name.json";
	my $catalog = sql($node, slurp_file("$root/ci/reference.sql"));

	open my $handle, '>', $file or die "cannot write $file: $!";
	print $handle "$catalog\n";
	close $handle or die "cannot write $file: $!";
	my ($out, $err);
	my $ok = IPC::Run::run([ "$root/ci/reference", @options, $file, $tree ], '>', \$out, '2>', \$err);

	return ($ok, $err);
}

# A copy of docs/ to write into.
sub copy_of_docs
{
	my ($name) = @_;
	my $tree = "$dir/$name";

	make_path("$tree/docs/reference");
	foreach my $file (map { s{^\Q$root\E/}{}r } glob "$root/docs/*.md $root/docs/reference/*.md")
	{
		PostgreSQL::Test::Utils::system_or_bail('cp', "$root/$file", "$tree/$file");
	}
	return $tree;
}

# ---- the committed reference is what is generated ----------------------

my ($ok, $said) = reference('as_is', $root, '--check');

ok($ok, 'everything has a comment and docs/ is what the catalog says');
is($said, '', 'and nothing is complained of');

my $catalog = JSON::PP->new->decode(slurp_file("$dir/as_is.json"));
my $functions = slurp_file("$root/docs/reference/functions.md");
my $settings = slurp_file("$root/docs/reference.md");
my %relations = map { $_ => slurp_file("$root/docs/reference/${_}s.md") } 'view', 'table';

# Counted without ci/reference: what the catalog has is on the pages.
is_deeply([ grep { index($functions, "`_wh.$_(") < 0 && $functions !~ /^`\Q$_\E\(/m && $functions !~ /\| `\Q$_\E\(/ }
		split /\n/, sql($node, q{SELECT DISTINCT proname FROM pg_proc WHERE pronamespace = '_wh'::regnamespace}) ], [], 'every function is there');
is_deeply([ grep { my ($kind, $relation, $column) = split / /; $relations{$kind} !~ /^### \Q$relation\E\n(?:(?!^### ).*\n)*?\| `\Q$column\E` \|/m }
		split /\n/, sql($node, q{SELECT CASE relkind WHEN 'v' THEN 'view' ELSE 'table' END || ' ' || relname || ' ' || attname
			FROM pg_class c JOIN pg_attribute ON attrelid = c.oid AND attnum > 0 AND NOT attisdropped
			WHERE relnamespace = '_wh'::regnamespace AND relkind IN ('r', 'v')}) ], [], 'every column is there, below its table or view');
is_deeply([ grep { index($settings, "| `$_` |") < 0 } split /\n/, sql($node, q{SELECT name FROM pg_settings WHERE name LIKE 'wh\_worker.%'}) ], [], 'every setting is there');
cmp_ok(scalar @{ $catalog->{functions} }, '>', 60, 'that was all of it');

# ---- what is new or changed is noticed ---------------------------------

sql($node, q{
	CREATE FUNCTION _wh.forgotten(a integer) RETURNS integer LANGUAGE sql AS 'SELECT 1';
	CREATE VIEW _wh.forgotten_view AS SELECT 1 AS known, 2 AS unknown;
	COMMENT ON VIEW _wh.forgotten_view IS 'A view'; COMMENT ON COLUMN _wh.forgotten_view.known IS 'One';
	CREATE TABLE _wh.forgotten_table (known integer);
	COMMENT ON COLUMN _wh.forgotten_table.known IS 'One';
	CREATE TYPE _wh.forgotten_type AS ENUM ('a');
	CREATE TRIGGER forgotten AFTER INSERT ON _wh.jobs EXECUTE FUNCTION _wh.notify_config();});
($ok, $said) = reference('gaps', $root, '--check');
ok(!$ok, 'objects without comments fail');
foreach my $gap ('function _wh.forgotten(integer)', 'column _wh.forgotten_view.unknown', 'table _wh.forgotten_table', 'type forgotten_type', 'trigger forgotten on _wh.jobs')
{
	like($said, qr/^\Q$gap\E has no comment$/m, "$gap is named");
}
is(scalar(() = $said =~ /has no comment/g), 5, 'and nothing else');
like($said, qr{^docs/reference/functions\.md is not what the catalog says}m, 'the page that lacks the function is named');

my $tree = copy_of_docs('regenerated');

reference('written', $tree);
like(slurp_file("$tree/docs/reference/views.md"), qr/^### forgotten_view\n\nA view\.\n\n\| column .*\n.*\n\| `known` \| integer \| One \|$/m, 'what no line names comes among the further ones');
sql($node, q{DROP FUNCTION _wh.forgotten(integer); DROP VIEW _wh.forgotten_view; DROP TABLE _wh.forgotten_table; DROP TYPE _wh.forgotten_type; DROP TRIGGER forgotten ON _wh.jobs});
reference('back', $tree);
is(slurp_file("$tree/$_"), slurp_file("$root/$_"), "$_ is byte for byte the same when it is made again")
  foreach map { s{^\Q$root\E/}{}r } glob "$root/docs/*.md $root/docs/reference/*.md";

sql($node, q{COMMENT ON COLUMN _wh.jobs.state IS 'A *new* text with <markup>, a | and {BRACES_IN}'});
($ok, $said) = reference('changed', $root, '--check');
ok(!$ok, 'a comment that has changed fails');
is($said, "docs/reference/tables.md is not what the catalog says: run make reference\n", 'and says what to do');
reference('changed', $tree);
like(slurp_file("$tree/docs/reference/tables.md"), qr/A \\\*new\\\* text with \\<markup\\>, a \\\| and `\{BRACES_IN\}` \|$/m, 'text of comments stays text');

# ---- links -------------------------------------------------------------

# As GitHub makes them of headings.
sub anchors
{
	my ($file) = @_;
	my (%anchors, $in_code);

	foreach my $line (split /\n/, slurp_file($file))
	{
		$in_code = !$in_code if $line =~ /^\s*```/;
		next if $in_code || $line !~ /^#+ +(.*?) *$/;
		my $anchor = lc($1 =~ s/\[([^\]]*)\]\([^)]*\)/$1/gr) =~ s/[^\w\- ]//gr =~ s/ /-/gr;
		$anchors{$anchor} = 1;
	}
	return \%anchors;
}

my (@broken, $links);

foreach my $file (map { s{^\Q$root\E/}{}r } glob "$root/*.md $root/docs/*.md $root/docs/*/*.md")
{
	my $text = slurp_file("$root/$file") =~ s/^```.*?^```//gmsr;
	my ($folder) = $file =~ m{^(.*/)?};

	while ($text =~ /\]\(([^)\s]+)\)/g)
	{
		my ($target, $anchor) = $1 =~ /^([^#]*)(?:#(.*))?$/;

		next if $target =~ /^[a-z]+:/;
		$links++;
		my $path = $target eq '' ? "$root/$file" : "$root/" . ($folder // '') . $target;
		push @broken, "$file: $target" and next unless -e $path;
		push @broken, "$file: $target#$anchor" if defined $anchor && !anchors($path)->{$anchor};
	}
}
is_deeply(\@broken, [], 'links within the docs lead somewhere');
cmp_ok($links, '>', 50, 'there are some');

done_testing();
