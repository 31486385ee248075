"""The page's style: light and dark, narrow and wide, no font and no image from anywhere."""

STYLE = """
:root{color-scheme:light dark;--bg:#f6f7f9;--card:#fff;--ink:#1a1f26;--dim:#5a6572;--line:#dfe3e8;
--good:#12734a;--goodbg:#dff3e8;--bad:#9c2a10;--badbg:#fde6de;--a:#2f6fb7;--b:#c77d11;--c:#7a4fb3;--d:#b3392f;
--e:#6d7885}
@media(prefers-color-scheme:dark){:root{--bg:#12161b;--card:#1b2128;--ink:#e8ecf1;--dim:#9aa6b3;--line:#2e3742;
--good:#7fdcae;--goodbg:#12352a;--bad:#ffb49c;--badbg:#43190f;--a:#6fa8e6;--b:#e6ab4f;--c:#b794e6;--d:#ee7d72;
--e:#8f9baa}}
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--ink);font:16px/1.45 system-ui,sans-serif}
header{padding:1.2rem 1.5rem 1.1rem}
header.fresh{background:var(--goodbg);color:var(--good)}header.starting{background:var(--card)}header.needs{background:var(--badbg);color:var(--bad)}
header p,header h1{margin:0 auto;max-width:68rem}
.brand{font-weight:600;letter-spacing:.04em;opacity:.8}
h1{font-size:2.4rem;line-height:1.15}.sub{font-size:1.1rem}
main{display:grid;grid-template-columns:repeat(2,minmax(0,1fr));gap:1rem;max-width:71rem;margin:0 auto;
padding:1rem 1.5rem}
section{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:.9rem 1rem;min-width:0}
.wide,.todo,.look{grid-column:1/-1}.todo{border-color:var(--bad)}.todo h2{color:var(--bad)}
.todo ul,.look ul{margin:0;padding:0;list-style:none}li+li{margin-top:.7rem}.legend li{margin:0}
code{display:block;width:fit-content;max-width:100%;margin-top:.25rem;padding:.2rem .55rem;border-radius:6px;
background:var(--bg);border:1px solid var(--line);font:600 .95rem ui-monospace,monospace;overflow-wrap:anywhere}
h2{margin:0 0 .55rem;font-size:.95rem;color:var(--dim);font-weight:600}
.facts{display:grid;grid-template-columns:repeat(4,minmax(0,1fr));gap:.5rem;margin:0}
dt{color:var(--dim);font-size:.85rem}dd{margin:0;font-size:1.5rem;font-variant-numeric:tabular-nums}
svg{display:block;width:100%;height:auto}svg text{fill:var(--dim);font:12px system-ui,sans-serif}
svg .v{fill:var(--ink)}.axis{stroke:var(--line)}
.complete,.inserted,.succeeded,.linked{fill:var(--a)}.partial,.updated,.pending,.unresolved{fill:var(--b)}
.held,.restored,.running{fill:var(--c)}.failed,.deleted,.dead,.conflict,.unknown{fill:var(--d)}
.cancelled,.missing{fill:var(--e)}
.legend{display:flex;flex-wrap:wrap;gap:.1rem .9rem;margin:.4rem 0 0;padding:0;list-style:none;font-size:.85rem;
color:var(--dim)}
.legend svg{display:inline-block;width:.7rem;height:.7rem;margin-right:.3rem}
table{width:100%;border-collapse:collapse;font-size:.92rem;font-variant-numeric:tabular-nums}
th{text-align:left;color:var(--dim);font-weight:600}th,td{padding:.3rem .4rem;border-top:1px solid var(--line);
vertical-align:top}
thead th{border-top:0}.n{text-align:right;white-space:nowrap}small{color:var(--dim)}
td .held,td .failed,td .partial{color:var(--bad);font-weight:600}
footer{max-width:71rem;margin:0 auto;padding:0 1.5rem 1.5rem;color:var(--dim);font-size:.85rem}a{color:inherit}
@media(max-width:44rem){main{grid-template-columns:minmax(0,1fr);padding:.8rem}header{padding:1rem .9rem}
h1{font-size:2rem}
.facts{grid-template-columns:repeat(2,minmax(0,1fr))}th,td{padding:.3rem .15rem;font-size:.78rem}
svg text{font-size:17px}
footer{padding:0 .9rem 1rem}}
"""
