/*
 * status_page_style.c: how the status page looks: its style sheet, and the
 * patterns that tell the states of days apart without their colours.
 *
 * Called by status_page.c.  Constant text, on one line and without backslashes,
 * as all of the page has to be.  Colours are named once for light and once for
 * dark; text has a contrast of 4.5 and more to what it is on, drawn states of 3,
 * which t/054_status_page.pl measures.  Nothing is loaded from anywhere.
 */
#include "postgres.h"

#include "status_page.h"

static const char *const colours =
	":root{color-scheme:light dark;--ground:#fff;--card:#f4f6f8;--line:#d4dae0;--text:#17202a;--soft:#4f5b67;"
	"--link:#0a5ca8;--loaded:#2f7fb8;--combined:#54708a;--suspect:#9a5b00;--bad:#c22230;--note:#0a5ca8;--well:#1b7a3d;"
	"--on:#fff}"
	"@media (prefers-color-scheme:dark){:root{--ground:#11161b;--card:#1b2229;--line:#35404b;--text:#e8edf2;"
	"--soft:#a9b5c1;--link:#7cbcf5;--loaded:#4a9ad4;--combined:#7f97ad;--suspect:#e5a53a;--bad:#ff7b7f;--note:#7cbcf5;"
	"--well:#63c788;--on:#11161b}}";

static const char *const elements =
	"*{box-sizing:border-box}"
	"body{margin:0;background:var(--ground);color:var(--text);font:15px/1.45 system-ui,'Segoe UI',Roboto,'DejaVu Sans',sans-serif}"
	"header,main,footer{max-width:76rem;margin:0 auto;padding:0 1rem}"
	"header{padding-top:1.25rem}"
	"h1{font-size:1.5rem;margin:0;overflow-wrap:anywhere}"
	"h2{font-size:1.2rem;margin:0 0 .6rem}"
	"h3{font-size:1rem;margin:1.2rem 0 .2rem;overflow-wrap:anywhere}"
	"section{padding:1.1rem 0;border-top:1px solid var(--line)}"
	"section:first-child{border-top:0}"
	"p{margin:.2rem 0;overflow-wrap:anywhere}"
	"a{color:var(--link)}"
	"ul{margin:.3rem 0;padding-left:1.2rem}"
	"nav ul,.cards,.grid,.legend,.tiles{list-style:none;padding:0;margin:.6rem 0}"
	"nav ul,.legend{display:flex;flex-wrap:wrap;gap:.2rem 1.1rem}"
	".note,figcaption,footer,.s,.axis{color:var(--soft);font-size:.85rem}"
	"footer{padding-bottom:2rem}"
	":focus-visible{outline:3px solid var(--link);outline-offset:2px}";

static const char *const cards =
	".tiles{display:grid;grid-template-columns:repeat(auto-fill,minmax(8.5rem,1fr));gap:.6rem}"
	".tiles li{background:var(--card);border-radius:.4rem;padding:.5rem .75rem;color:var(--soft);font-size:.85rem}"
	".tiles b{display:block;font-size:1.45rem;line-height:1.25;color:var(--text);font-variant-numeric:tabular-nums}"
	".tiles .bad b{color:var(--bad)}.tiles .look b{color:var(--suspect)}"
	".cards>li{background:var(--card);border-radius:.4rem;border-left:4px solid var(--line);padding:.5rem .75rem;margin:.5rem 0}"
	".cards .broken{border-left-color:var(--bad)}.cards .look{border-left-color:var(--suspect)}"
	".cards .note{border-left-color:var(--note);color:inherit;font-size:inherit}.cards .well{border-left-color:var(--well)}"
	".badge,.tag{display:inline-block;border-radius:.25rem;padding:0 .4rem;font-size:.75rem;font-weight:600;text-transform:uppercase;letter-spacing:.03em}"
	".tag{border:1px solid var(--soft);color:var(--soft)}"
	".badge{background:var(--note);color:var(--on)}.broken .badge{background:var(--bad)}.look .badge{background:var(--suspect)}"
	".badge.broken{background:var(--bad)}.badge.look{background:var(--suspect)}"
	".well .badge,.badge.well{background:var(--well)}"
	"pre{margin:.35rem 0 .1rem;padding:.35rem .6rem;overflow-x:auto;background:var(--ground);border:1px solid var(--line);"
	"border-radius:.25rem;direction:ltr;unicode-bidi:isolate}"
	"code{font:13px/1.4 ui-monospace,'DejaVu Sans Mono',Consolas,monospace}";

static const char *const drawings =
	".bar{display:block;width:100%;height:.6rem;margin:.35rem 0;border-radius:.3rem}"
	".empty{fill:var(--line)}.full{fill:var(--loaded)}"
	".charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(17rem,1fr));gap:1rem 2rem}"
	"figure{margin:.5rem 0}"
	".chart{display:block;width:100%;height:8rem;margin-top:.3rem;border-bottom:1px solid var(--soft)}"
	".over{display:block;width:100%;height:6rem;margin-top:.3rem}"
	".ticks{display:grid;grid-auto-flow:column;grid-auto-columns:1fr;text-align:center;font-size:.75rem;color:var(--soft)}"
	"path.l{stroke:var(--loaded);stroke-width:12;stroke-dasharray:8 2;fill:none}"
	"path.c{stroke:var(--combined);stroke-width:12;fill:none}"
	"path.s{fill:url(#ps)}path.r{fill:url(#pr)}path.f{fill:url(#pf)}path.m{fill:url(#pm)}path.q{fill:url(#pq)}path.t{fill:url(#pt)}"
	".over path{stroke:none}.over path.l{fill:var(--loaded)}.over path.c{fill:var(--combined)}";

/* On a narrow screen the days of a row go below its name, over the whole width. */
static const char *const grid =
	".grid li,.axis{display:grid;grid-template-columns:minmax(7rem,13rem) 1fr minmax(8rem,15rem);gap:.1rem .8rem;align-items:center}"
	".grid{content-visibility:auto;contain-intrinsic-size:auto 60rem}"
	".grid li{padding:1px 0}"
	".grid svg{width:100%;height:1.05rem;display:block}"
	".n{overflow:hidden;text-overflow:ellipsis;white-space:nowrap}"
	".s{overflow-wrap:anywhere}.s span{white-space:nowrap}.s b{color:var(--bad);font-weight:600}"
	".legend svg{width:2.2rem;height:1rem;vertical-align:-.15rem}"
	".months{position:relative;height:.9rem;display:block}"
	".months i{position:absolute;font-style:normal;border-left:1px solid var(--soft);padding-left:.2rem;line-height:1}"
	".wide{overflow:auto;max-height:34rem;border-bottom:1px solid var(--line)}"
	"table{border-collapse:collapse;font-size:.85rem;font-variant-numeric:tabular-nums}"
	"th,td{padding:.25rem .7rem .25rem 0;text-align:left;vertical-align:top;border-bottom:1px solid var(--line)}"
	"thead th{color:var(--soft)}tbody th{font-weight:600;min-width:9rem;overflow-wrap:anywhere}"
	"td{white-space:nowrap}.cause{min-width:16rem;white-space:normal;overflow-wrap:anywhere}"
	"summary{cursor:pointer;margin:.6rem 0;color:var(--link)}"
	"@media (max-width:44rem){"
	".grid li,.axis{grid-template-columns:1fr auto}.grid svg{grid-row:2;grid-column:1/3;height:1.2rem}.grid li{padding:.2rem 0}"
	".s{text-align:right;max-width:60vw}.axis .months{grid-column:1/3}.axis span:not(.months){display:none}"
	".tiles{grid-template-columns:repeat(auto-fill,minmax(6.5rem,1fr))}}"
	"@media print{.grid{content-visibility:visible}pre{white-space:pre-wrap}}";

/*
 * A cell of each: two blocks (suspect), a block under a gap with a lid (not
 * renewed), a cross (failed), an empty frame (missing), a low bar (queued), a
 * dot (today).
 */
static const char *const patterns =
	"<svg width=\"0\" height=\"0\" style=\"position:absolute\" aria-hidden=\"true\"><defs>"
	"<pattern id=\"ps\" width=\"10\" height=\"14\" patternUnits=\"userSpaceOnUse\">"
	"<path d=\"M1 1h8v5h-8zM1 8h8v5h-8z\" style=\"fill:var(--suspect)\"/></pattern>"
	"<pattern id=\"pr\" width=\"10\" height=\"14\" patternUnits=\"userSpaceOnUse\">"
	"<path d=\"M1 5.5h8v7.5h-8z\" style=\"fill:var(--loaded)\"/><path d=\"M1 1h8v3h-8z\" style=\"fill:var(--bad)\"/></pattern>"
	"<pattern id=\"pf\" width=\"10\" height=\"14\" patternUnits=\"userSpaceOnUse\">"
	"<path d=\"M1 1h3l1 3.6 1-3.6h3l-2.4 6 2.4 6h-3l-1-3.6-1 3.6h-3l2.4-6z\" style=\"fill:var(--bad)\"/></pattern>"
	"<pattern id=\"pm\" width=\"10\" height=\"14\" patternUnits=\"userSpaceOnUse\">"
	"<path d=\"M1 1h8v12h-8zM3 3v8h4v-8z\" style=\"fill:var(--bad);fill-rule:evenodd\"/></pattern>"
	"<pattern id=\"pq\" width=\"10\" height=\"14\" patternUnits=\"userSpaceOnUse\">"
	"<path d=\"M1 10h8v3h-8z\" style=\"fill:var(--loaded)\"/></pattern>"
	"<pattern id=\"pt\" width=\"10\" height=\"14\" patternUnits=\"userSpaceOnUse\">"
	"<path d=\"M3 5h4v4h-4z\" style=\"fill:var(--soft)\"/></pattern>"
	"</defs></svg>";

void
wh_page_style(WhPage *page)
{
	appendStringInfo(page->out, "<style>%s%s%s%s%s</style>", colours, elements, cards, drawings, grid);
}

void
wh_page_patterns(WhPage *page)
{
	appendStringInfoString(page->out, patterns);
}
