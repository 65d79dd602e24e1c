# A synchronous standby: what a backfill says is done is there; while it is away
# nobody can commit, but readers read, what waits says so, a cancel ends it, and
# the server stops.
use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use WhTest;

my $source = new_tenant('source');
my $node = new_warehouse(conf => { max_wal_senders => 4, synchronous_commit => 'remote_apply' });

create_events($source, '2025-03-01', 5, 20);
add_events_template($node, 'events');
add_tenant($node, 'shop', $source, templates => ['events']);
is((enqueue_and_wait($node, "'events', 'shop', '2025-03-01', '2025-03-03'"))[1], 'succeeded', 'days are loaded');
$node->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby',
	defined $ENV{WH_WAREHOUSE_INSTALL} ? (install_path => $ENV{WH_WAREHOUSE_INSTALL}) : ());
$standby->init_from_backup($node, 'base', has_streaming => 1);
$standby->start;
$node->append_conf('postgresql.conf', "synchronous_standby_names = '*'");
$node->reload;
wait_until($node, "SELECT sync_state = 'sync' FROM pg_stat_replication", 'a standby is synchronous');
sql($source, "UPDATE events SET kind = 'second version'");
my ($backfill, $state) = enqueue_and_wait($node, "'events', 'shop', '2025-03-01', '2025-03-03', mode => 'all'");
is($state, 'succeeded', 'days are loaded with it');
is(sql($standby, "SELECT state FROM _wh.backfills WHERE backfill_id = $backfill"), 'succeeded', 'what has succeeded has done so there too');
is(sql($standby, 'SELECT string_agg(DISTINCT kind, \',\') FROM shop.events'), 'second version', 'with its days');

# ---- it goes away while a worker waits for a reader ------------------------

# What only a session of ours waits for would hang the test.
sub locally
{
	my ($query) = @_;

	return sql($node, "SET synchronous_commit = local; $query");
}

sub waits_for_standby
{
	my ($type) = @_;

	return "SELECT count(*) = 1 FROM _wh.worker_status WHERE backend_type = 'wh_worker $type' AND state = 'waiting_replication'";
}

sql($source, "UPDATE events SET kind = 'third version'");
my $reader = $node->background_psql('postgres', extra_params => [ '-U', 'phood_ro' ]);
$reader->query_safe('BEGIN; SELECT count(*) FROM shop.events_2025_03_01');
$backfill = locally("SELECT _wh.enqueue_backfill('events', 'shop', '2025-03-01', '2025-03-02', mode => 'all', newest_first => false)");
wait_until($node, "SELECT count(*) = 1 FROM _wh.worker_status WHERE state = 'waiting_lock'", 'a worker waits for a reader');
my $job = sql($node, "SELECT job_id FROM _wh.worker_status WHERE state = 'waiting_lock'");
$standby->stop('immediate');
$reader->query_safe('COMMIT');
wait_until($node, waits_for_standby('worker'), 'it commits, and waits for the standby, as worker_status says');
is($reader->query_safe("SET statement_timeout = '20s'; SELECT string_agg(DISTINCT kind, ',') FROM shop.events WHERE at < '2025-03-02'"),
	'third version', 'readers of its day need not wait');
is($reader->query_safe('SELECT count(*) FROM public.events'), '60', 'nor those of the public view');
like(sql($node, 'SELECT _wh.status_page()'), qr/wait for a synchronous standby/, 'the status page says it');
is(sql($node, "SELECT state FROM _wh.backfills WHERE backfill_id = $backfill"), 'running', 'the backfill is not done');

# ---- a cancel ends the wait -------------------------------------------------

sql($node, "SELECT pg_cancel_backend(pid) FROM _wh.worker_status WHERE job_id = $job");
$node->wait_for_log(qr/canceling wait for synchronous replication due to user request/);
pass('a worker that is cancelled waits no longer');
wait_until($node, "SELECT state = 'succeeded' FROM _wh.jobs WHERE job_id = $job", 'it had succeeded');
wait_until($node, waits_for_standby('worker') . " AND job_id <> $job", 'the next one begins, and waits');

# ---- the server stops --------------------------------------------------------

# The launcher too: something of a template that it has to publish.
locally("SELECT _wh.cancel_backfill($backfill)");
wait_until($node, waits_for_standby('launcher'), 'the launcher waits');
locally("SELECT _wh.enqueue_backfill('events', 'shop', '2025-03-04', '2025-03-05')");
ok($node->stop('fast'), 'pg_ctl stop -m fast does not hang');
is(log_count($node, qr/PANIC|terminated by signal/), 0, 'and nobody was killed');

# ---- and goes on without the standby -----------------------------------------

$node->append_conf('postgresql.conf', "synchronous_standby_names = ''");
$node->start;
wait_until($node, "SELECT NOT EXISTS (SELECT FROM _wh.jobs WHERE state IN ('queued', 'running'))", 'the queue is worked off');
wait_until($node, "SELECT NOT EXISTS (SELECT FROM _wh.backfills WHERE state = 'running')", 'backfills end');
is((enqueue_and_wait($node, "'events', 'shop', '2025-03-01', '2025-03-05', mode => 'all'"))[1], 'succeeded', 'all days can be loaded');
same_content($node, 'SELECT id, at, kind, amount, payload FROM shop.events', $source, events_query('2025-03-01', '2025-03-05'), 'they are what the tenant has');
is(sql($node, 'SELECT count(*) FROM _wh.day_loads d LEFT JOIN pg_class c ON c.oid = d.relation_oid WHERE c.relname IS DISTINCT FROM d.relation OR c.relfilenode <> d.relation_file OR NOT d.in_views'),
	'0', 'and the ledger knows them');

done_testing();
