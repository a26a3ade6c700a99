//! Vectors of change lines and of the digest that they add up to.

use super::file::Vector;
use super::make::Named;

pub fn changes() -> Vec<Named> {
    let other = "02".repeat(16);
    let ok = [
        ("plain", r#"{"t":[1775000000000,0],"c":"student","r":"p1","f":{"name":"見本 花子"}}"#.to_owned()),
        (
            "bases",
            format!(
                r#"{{"t":[1775000000000,2],"c":"attendance","r":"2026-04-08/p1/day","f":{{"code":"absent_sick"}},"b":{{"code":[7,"{other}:9"]}},"w":"tanaka"}}"#
            ),
        ),
        ("import", r#"{"t":[0,0],"c":"student","r":"p1","f":{"kana":null},"s":"oneroster"}"#.to_owned()),
        (
            "origin",
            format!(r#"{{"t":[1,0],"c":"student","r":"p1","f":{{"a":[1,{{"b":2.5}}]}},"o":"{other}:3"}}"#),
        ),
        ("later-keys", r#"{"t":[1,0],"c":"unknown.v9","r":"x","f":{"a":true},"zz":{"k":1}}"#.to_owned()),
    ];
    let bad = [
        ("not-json", "not_json", r#"{"t":[1,0],"c":"a""#),
        ("no-stamp", "key t", r#"{"c":"a","r":"x","f":{"a":1}}"#),
        ("negative-stamp", "key t", r#"{"t":[-1,0],"c":"a","r":"x","f":{"a":1}}"#),
        ("collection", "key c", r#"{"t":[1,0],"c":"Student","r":"x","f":{"a":1}}"#),
        ("record", "key r", r#"{"t":[1,0],"c":"a","r":"x\n","f":{"a":1}}"#),
        ("no-fields", "key f", r#"{"t":[1,0],"c":"a","r":"x","f":{}}"#),
        ("field-name", "key f", r#"{"t":[1,0],"c":"a","r":"x","f":{"A":1}}"#),
        ("base-of-no-field", "key b", r#"{"t":[1,0],"c":"a","r":"x","f":{"a":1},"b":{"z":[1]}}"#),
        ("base", "key b", r#"{"t":[1,0],"c":"a","r":"x","f":{"a":1},"b":{"a":[-1]}}"#),
        ("origin-text", "key o", r#"{"t":[1,0],"c":"a","r":"x","f":{"a":1},"o":"here:1"}"#),
        ("who", "key w", r#"{"t":[1,0],"c":"a","r":"x","f":{"a":1},"w":7}"#),
    ];
    let vector = |expect, line: &str| {
        Vector::new("change", expect, "one line").field("log", "01".repeat(16)).text("body", line)
    };
    let ok = ok.iter().map(|(name, line)| (format!("change-{name}"), vector("ok", line)));
    let bad = bad.iter().map(|(name, expect, line)| (format!("change-{name}"), vector(expect, line)));
    ok.chain(bad).collect()
}

pub fn digest() -> Named {
    let (one, two) = ("01".repeat(16), "02".repeat(16));
    let lines = [
        format!(
            r#"{one}/0 {{"t":[10,0],"c":"student","r":"p1","f":{{"name":"見本 花子","phone":"03-0000-0000"}}}}"#
        ),
        format!(
            r#"{two}/0 {{"t":[20,0],"c":"student","r":"p1","f":{{"phone":"090"}},"b":{{"phone":["{one}:1"]}}}}"#
        ),
        format!(r#"{one}/0 {{"t":[15,3],"c":"student","r":"p1","f":{{"phone":null}},"b":{{"phone":[1]}}}}"#),
    ];
    let vector = Vector::new("digest", "ok", "two writers, a field in dispute, tier 0")
        .field("secret", "AGE-SECRET-KEY-EXAMPLE")
        .field("digest", "49899e14b3f7322e7574bb9f7eb2c0e896583414b81fc6f20524d38da1775250")
        .text("body", &lines.join("\n"));
    ("digest".to_owned(), vector)
}
