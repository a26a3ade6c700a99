//! The part of the command line that says what each tier may take of the disk.

use std::collections::BTreeMap;

use clap::Args;
use sonae_proto::ids::Tier;
use sonae_store::room::Quota;

#[derive(Debug, Clone, Args)]
pub(super) struct RoomArguments {
    /// Sealed batches that a tier may have, such as 2=8GiB; by default half of the disk for tier 1, a quarter for tier 2
    #[arg(long, value_name = "TIER=BYTES", value_parser = bound)]
    quota: Vec<(Tier, u64)>,
    /// Room that a tier leaves free, such as 1=512MiB; by default a twentieth of the disk for tier 1, a tenth for tier 2
    #[arg(long, value_name = "TIER=BYTES", value_parser = bound)]
    keep_free: Vec<(Tier, u64)>,
}

impl RoomArguments {
    /// Returns the quota; what is not said follows from the size of the disk.
    pub(super) fn quota(&self) -> Quota {
        let map = |bounds: &[(Tier, u64)]| bounds.iter().copied().collect::<BTreeMap<_, _>>();
        Quota { bytes_max: map(&self.quota), free_min: map(&self.keep_free) }
    }
}

/// Reads TIER=BYTES, with KiB, MiB, GiB or TiB behind the number or nothing.
fn bound(text: &str) -> Result<(Tier, u64), String> {
    let (tier, bytes) = text.split_once('=').ok_or("write it as TIER=BYTES, such as 2=8GiB")?;
    let tier: Tier = match tier {
        "0" => return Err("tier 0 has no bound: it is always taken as long as there is room".into()),
        tier => tier.parse().map_err(|_| "the tier is 1 or 2".to_owned())?,
    };
    let digits = bytes.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = bytes.split_at(digits);
    let shift = match unit {
        "" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        "TiB" => 40,
        _ => return Err(format!("'{unit}' is no unit; use KiB, MiB, GiB or TiB")),
    };
    let number: u64 = number.parse().map_err(|_| format!("'{bytes}' is no number of bytes"))?;
    let bytes = number.checked_mul(1_u64 << shift).ok_or_else(|| format!("'{bytes}' is too much"))?;
    Ok((tier, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: bounds are read as they are meant, and wrong ones say what to write. Method: rows.
    #[test]
    fn bounds() {
        assert_eq!(bound("1=4096"), Ok((Tier::Daily, 4_096)));
        assert_eq!(bound("2=8GiB"), Ok((Tier::Archive, 8 << 30)));
        for wrong in ["2", "0=1GiB", "3=1", "1=", "1=-1", "1=5GB", "1=99999999999TiB", "x=1"] {
            assert!(bound(wrong).is_err(), "{wrong}");
        }
    }
}
