//! What can be computed of how the page looks: contrast of every text, room, names, and the way of the tabulator key.

use anyhow::{Context, Result, ensure};
use phantom_tests::browsers::Browser;
use serde_json::Value;

/// Texts that are seen, with less contrast than WCAG 2 asks for at level AA: 4.5, or 3 where they are large.
const CONTRAST: &str = r#"
const parts = text => {
    const numbers = text.match(/[\d.]+/g).map(Number);
    const scale = text.startsWith("color(srgb") ? 255 : 1;
    return [numbers[0] * scale, numbers[1] * scale, numbers[2] * scale, numbers.length > 3 ? numbers[3] : 1];
};
const over = (top, under) => [0, 1, 2].map(n => top[n] * top[3] + under[n] * (1 - top[3])).concat(1);
const light = colour => {
    const [r, g, b] = colour.map(part => part / 255).map(part => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const ratio = (one, other) => {
    const [more, less] = [light(one), light(other)].sort((a, b) => b - a);
    return (more + 0.05) / (less + 0.05);
};
const behind = node => {
    const layers = [];
    for (let at = node; at; at = at.parentElement) layers.push(parts(getComputedStyle(at).backgroundColor));
    return layers.reverse().reduce((under, top) => over(top, under), [255, 255, 255, 1]);
};
const poor = [];
let seen = 0;
for (const node of document.querySelectorAll("body, body *")) {
    const own = [...node.childNodes].some(child => child.nodeType === 3 && child.textContent.trim());
    if (!own || !node.checkVisibility({visibilityProperty: true}) || node.closest(".hidden, title, script, noscript")) continue;
    const style = getComputedStyle(node);
    const ink = parts(node instanceof SVGElement ? style.fill : style.color);
    const ground = behind(node);
    const size = parseFloat(style.fontSize);
    const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
    const is = ratio(over(ink, ground), ground);
    seen += 1;
    if (is < (large ? 3 : 4.5)) poor.push(node.tagName + "." + node.className + ": " + node.textContent.slice(0, 30) + ": " + is.toFixed(2));
}
return {poor, seen, ground: light(parts(getComputedStyle(document.body).backgroundColor))};
"#;

/// That every text has its contrast, on a light ground or a dark one.
pub(super) fn can_be_read(browser: &mut dyn Browser, colours: &str) -> Result<()> {
    let found = browser.run(CONTRAST)?;
    ensure!(found["poor"].as_array().is_some_and(Vec::is_empty), "{colours}: {}", found["poor"]);
    ensure!(found["seen"].as_u64().is_some_and(|seen| seen > 3), "{found}");
    let ground = found["ground"].as_f64().context("no ground")?;
    ensure!(if colours == "light" { ground > 0.8 } else { ground < 0.05 }, "{colours}: {ground}");
    Ok(())
}

/// That nothing is wider than the window: only tables scroll, in themselves.
pub(super) fn fits(browser: &mut dyn Browser) -> Result<()> {
    let wide = browser.run(
        "return [document.documentElement.scrollWidth, innerWidth, [...document.querySelectorAll('body *')].filter(node => \
         !node.closest('.scroll > *, nav ul > *, .hidden, .skip, svg') && node.getBoundingClientRect().right > innerWidth + 1).map(node => node.outerHTML.slice(0, 80))]",
    )?;
    let [all, window] = [&wide[0], &wide[1]].map(|width| width.as_u64().unwrap_or_default());
    ensure!(all <= window && wide[2].as_array().is_some_and(Vec::is_empty), "{wide}");
    Ok(())
}

/// That whatever can be used or scrolled comes up by the tabulator key, is seen then, and has a name.
pub(super) fn reaches_all_by_keyboard(browser: &mut dyn Browser) -> Result<()> {
    // Each gets a number of its own; of radio buttons one is reached, the arrows lead to the others.
    let wanted = browser.run(
        "document.activeElement.blur(); let n = 0; const wanted = []; \
         for (const node of document.querySelectorAll('a[href], input, summary, [tabindex=\"0\"]')) { \
             if (!node.checkVisibility() || (node.type === 'radio' && !node.checked)) continue; \
             node.dataset.stop = n; wanted.push(n++); } \
         for (const node of document.querySelectorAll('.scroll')) \
             if (node.checkVisibility() && node.scrollWidth > node.clientWidth && node.tabIndex !== 0) wanted.push('no way to scroll'); \
         return wanted",
    )?;
    let wanted = wanted.as_array().context("no list")?.clone();
    let mut reached = Vec::new();
    for _ in 0..wanted.len() {
        browser.tab()?;
        let at = browser.run(
            "const node = document.activeElement, style = getComputedStyle(node.type === 'radio' ? node.nextElementSibling : node); \
             const name = node.getAttribute('aria-labelledby') ? document.getElementById(node.getAttribute('aria-labelledby')).textContent : \
                 node.type === 'radio' ? node.closest('label').textContent : node.textContent; \
             const box = node.getBoundingClientRect(); \
             return {stop: Number(node.dataset.stop), outline: style.outlineStyle, width: parseFloat(style.outlineWidth), name, \
                 seen: box.bottom > 0 && box.top < innerHeight}",
        )?;
        ensure!(at["outline"] == "solid" && at["width"].as_f64() >= Some(2.0), "the focus is not seen: {at}");
        ensure!(at["name"].as_str().is_some_and(|name| !name.trim().is_empty()), "{at}");
        ensure!(at["seen"] == Value::Bool(true), "{at}");
        reached.push(at["stop"].clone());
    }
    ensure!(reached == wanted, "{reached:?} of {wanted:?}");
    // The first of them leads past the others.
    let skip = browser.run("return document.querySelector('[data-stop=\"0\"]').className")?;
    ensure!(skip == "skip", "{skip}");
    Ok(())
}

/// That regions, tables and pictures say what they are to those who do not see them.
pub(super) fn is_named(browser: &mut dyn Browser) -> Result<()> {
    let missing = browser.run(
        "const missing = []; const one = selector => { if (document.querySelectorAll(selector).length !== 1) missing.push(selector); }; \
         ['header', 'nav[aria-label]', 'main', 'footer', 'h1', 'html[lang]', '[role=status]', '[role=alert]'].forEach(one); \
         for (const node of document.querySelectorAll('[aria-labelledby]')) \
             if (!document.getElementById(node.getAttribute('aria-labelledby'))?.textContent.trim()) missing.push(node.outerHTML.slice(0, 80)); \
         for (const node of document.querySelectorAll('section, [role=region], svg')) if (!node.hasAttribute('aria-labelledby')) missing.push(node.tagName); \
         for (const node of document.querySelectorAll('th')) if (node.scope !== 'col') missing.push(node.textContent); \
         for (const row of document.querySelectorAll('tbody tr')) \
             if (row.children.length !== row.closest('table').querySelectorAll('th').length) missing.push('a cell of ' + row.closest('section').id); \
         for (const node of document.querySelectorAll('[id]')) if (document.querySelectorAll('#' + CSS.escape(node.id)).length !== 1) missing.push(node.id); \
         for (const node of document.querySelectorAll('nav a')) if (!document.querySelector(node.getAttribute('href'))) missing.push(node.href); \
         return missing",
    )?;
    ensure!(missing.as_array().is_some_and(Vec::is_empty), "{missing}");
    Ok(())
}
