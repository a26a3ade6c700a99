//! Where power comes from, as Linux tells it under `/sys/class/power_supply`.

use std::fs;
use std::path::Path;

/// Where Linux tells it.
pub const POWER_SUPPLIES: &str = "/sys/class/power_supply";

/// Whether power comes from the wall. A machine that knows of no supply at all has no battery to spare.
#[must_use]
pub fn is_good(supplies: &Path) -> bool {
    let Ok(entries) = fs::read_dir(supplies) else { return true };
    let (mut wall, mut on_line) = (0, false);
    for entry in entries.flatten() {
        let read = |name| fs::read_to_string(entry.path().join(name)).unwrap_or_default().trim().to_owned();
        if matches!(read("type").as_str(), "Mains" | "USB") {
            wall += 1;
            on_line |= read("online") != "0";
        }
    }
    wall == 0 || on_line
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a box on its battery is told from one at the wall. Method: folders as the kernel makes them.
    #[test]
    fn wall_and_battery() {
        let dir = tempfile::tempdir().unwrap();
        let supply = |name: &str, kind: &str, online: Option<&str>| {
            let folder = dir.path().join(name);
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join("type"), format!("{kind}\n")).unwrap();
            if let Some(online) = online {
                fs::write(folder.join("online"), format!("{online}\n")).unwrap();
            }
        };
        assert!(is_good(&dir.path().join("none")) && is_good(dir.path()));
        supply("BAT0", "Battery", None);
        assert!(is_good(dir.path()), "nothing says that the wall is gone");
        supply("AC", "Mains", Some("0"));
        assert!(!is_good(dir.path()));
        supply("usb", "USB", Some("1"));
        assert!(is_good(dir.path()));
    }
}
