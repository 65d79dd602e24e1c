# A page in headless Chromium: what it measures there, at a width, in light or dark.
#
# The page has no script, so a copy gets one that measures and writes its result
# as the only content; --dump-dom prints that. Nothing is asked of a network.
package WhBrowser;

use strict;
use warnings;

use Exporter 'import';
use JSON::PP qw(decode_json);
use PostgreSQL::Test::Utils;

our @EXPORT = qw(browse);

my $measure = <<'END';
(function () {
	function rgb(text) { return text.match(/[\d.]+/g).map(Number); }
	function channel(v) { v /= 255; return v <= 0.04045 ? v / 12.92 : Math.pow((v + 0.055) / 1.055, 2.4); }
	function luminance(c) { return 0.2126 * channel(c[0]) + 0.7152 * channel(c[1]) + 0.0722 * channel(c[2]); }
	function contrast(a, b) {
		var x = luminance(rgb(a)), y = luminance(rgb(b));
		return (Math.max(x, y) + 0.05) / (Math.min(x, y) + 0.05);
	}
	function ground(element) {
		for (var e = element; e; e = e.parentElement) {
			var colour = getComputedStyle(e).backgroundColor, c = rgb(colour);
			if (c.length < 4 || c[3] > 0) return colour;
		}
		return 'rgb(255, 255, 255)';
	}
	function all(selector) { return Array.prototype.slice.call(document.querySelectorAll(selector)); }
	all('details').forEach(function (d) { d.open = true; });
	var result = { width: innerWidth, content: document.documentElement.scrollWidth,
		dark: matchMedia('(prefers-color-scheme: dark)').matches, ground: getComputedStyle(document.body).backgroundColor,
		texts: 0, text_contrast: 99, worst: '', drawn: {}, outside: [], alerted: window.alerted || 0 };
	all('body *').forEach(function (e) {
		if (e.closest('svg') || e.tagName === 'SCRIPT') return;
		var own = Array.prototype.some.call(e.childNodes, function (n) { return n.nodeType === 3 && n.data.trim() !== ''; });
		if (!own) return;
		var c = contrast(getComputedStyle(e).color, ground(e));
		result.texts++;
		if (c < result.text_contrast) { result.text_contrast = c; result.worst = e.outerHTML.slice(0, 200); }
		var box = e.getBoundingClientRect();
		if (box.width > 0 && box.right > innerWidth + 1 && !e.closest('pre, .wide, .n')) result.outside.push(e.outerHTML.slice(0, 200));
	});
	all('defs pattern path').forEach(function (p) {
		var id = p.parentNode.id, c = contrast(getComputedStyle(p).fill, getComputedStyle(document.body).backgroundColor);
		result.drawn[id] = Math.min(result.drawn[id] || 99, c);
	});
	['l', 'c'].forEach(function (name) {
		var p = document.querySelector('.legend path.' + name);
		result.drawn[name] = contrast(getComputedStyle(p).stroke, getComputedStyle(document.body).backgroundColor);
	});
	result.elements = all('*').length;
	result.rows = all('.grid li').length;
	result.without_title = all('[role=img]').filter(function (e) { return !e.querySelector('title') || e.querySelector('title').textContent.trim() === ''; }).length;
	result.images = all('[role=img]').length;
	result.headings = all('h1, h2, h3').map(function (h) { return +h.tagName[1]; });
	result.landmarks = all('header, main, nav, footer').map(function (e) { return e.tagName.toLowerCase(); });
	result.lang = document.documentElement.lang;
	result.scrolls_unreachable = all('body *').filter(function (e) {
		return e.scrollWidth > e.clientWidth + 1 && /auto|scroll/.test(getComputedStyle(e).overflowX) && e.tabIndex < 0; }).length;
	result.scripts = all('script').length - 1;
	result.loaded = performance.getEntriesByType('resource').length;
	document.documentElement.innerHTML = '<body><pre id="result"></pre></body>';
	document.getElementById('result').textContent = JSON.stringify(result);
})();
END

# Options: width, dark.  Returns what was measured, as a hash.
sub browse
{
	my ($file, %opt) = @_;
	my $copy = PostgreSQL::Test::Utils::tempdir() . '/page.html';
	my $home = PostgreSQL::Test::Utils::tempdir() . '/browser';
	my $page = slurp_file($file);

	$page =~ s{</body>}{<script>$measure</script></body>} or die 'this page has no end';
	unlink $copy;
	append_to_file($copy, $page);
	mkdir $home;
	local $ENV{HOME} = $home;
	my ($out, $err) = run_command([ 'chromium-headless-shell', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage',
		'--disable-background-networking', "--user-data-dir=$home/" . ($opt{dark} ? 'dark' : 'light'),
		'--blink-settings=preferredColorScheme=' . ($opt{dark} ? 0 : 1),
		"--window-size=$opt{width},900", '--dump-dom', "file://$copy" ]);
	my ($json) = $out =~ m{<pre id="result">(.*?)</pre>}s;

	die "the browser measured nothing: $out\n$err" unless defined $json;
	$json =~ s/&lt;/</g;
	$json =~ s/&gt;/>/g;
	$json =~ s/&nbsp;/ /g;
	$json =~ s/&amp;/&/g;
	return decode_json($json);
}

1;
