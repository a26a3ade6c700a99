//! Owns families: children, guardians and how to reach them.
//!
//! Invariants: children of one family are one grade apart and share name and contacts; each grade gets the
//! same number of pupils, give or take one; the first families bear the canaries. Leaves out: identifiers.

use sonae_roster::{GuardianContact, SourcedId};

use super::Options;
use super::names::{BOYS, CANARY_FAMILY, FAMILY, GIRLS, MEN, Name, WOMEN};
use super::random::{Source, Stream};

/// One pupil.
pub(crate) struct Child {
    /// 1 to 6 in the newest year.
    pub(crate) grade: u8,
    pub(crate) given: Name,
    pub(crate) is_girl: bool,
    /// Days after 2 April of the year of birth, 0 to 364.
    pub(crate) birthday_offset: u32,
}

/// Somebody to call.
pub(crate) struct Guardian {
    name: String,
    kana: String,
    relationship: &'static str,
    phone1: String,
    phone2: String,
    email: String,
    lives_with: bool,
}

/// One family.
pub(crate) struct Family {
    pub(crate) name: Name,
    pub(crate) children: Vec<Child>,
    guardians: Vec<Guardian>,
    is_canary: bool,
}

/// Numbers below this are for everybody, the rest for canaries.
const CANARY_NUMBERS_FROM: u32 = 9_900;

/// Makes families until all pupils have one: of 100 families, 70 have one child here, 25 two, 5 three.
pub(crate) fn generate(source: &Source, options: &Options) -> Vec<Family> {
    let mut families = Vec::new();
    let mut next_pupil = 0u32;
    let mut index = 0u32;
    while next_pupil < options.pupils {
        let mut stream = source.stream("family", u64::from(index));
        let children = match stream.below(100) {
            0..70 => 1,
            70..95 => 2,
            _ => 3,
        };
        let canary = usize::try_from(index).ok().and_then(|at| CANARY_FAMILY.get(at));
        let name = canary.copied().unwrap_or_else(|| stream.pick(FAMILY));
        let until = next_pupil.saturating_add(children).min(options.pupils);
        let children = (next_pupil..until).map(|pupil| child(pupil, &mut stream)).collect();
        let numbers_from = canary.map(|_| CANARY_NUMBERS_FROM + 4 * index);
        let guardians = guardians(name, index, numbers_from, &mut stream);
        families.push(Family { name, children, guardians, is_canary: canary.is_some() });
        next_pupil = until;
        index = index.saturating_add(1);
    }
    families
}

fn child(pupil: u32, stream: &mut Stream) -> Child {
    let is_girl = stream.chance(49_000);
    let given = stream.pick(if is_girl { GIRLS } else { BOYS });
    let grade = u8::try_from(pupil % 6).unwrap_or(0) + 1;
    Child { grade, given, is_girl, birthday_offset: stream.below(365) }
}

/// Mother and father in either order or one of them alone, and sometimes a grandparent who lives elsewhere.
fn guardians(family: Name, index: u32, numbers_from: Option<u32>, stream: &mut Stream) -> Vec<Guardian> {
    let mother = (stream.pick(WOMEN), "母");
    let father = (stream.pick(MEN), "父");
    let mut people = match stream.below(100) {
        0..68 => vec![mother, father],
        68..85 => vec![father, mother],
        85..96 => vec![mother],
        _ => vec![father],
    };
    if stream.chance(35_000) {
        people.push(if stream.chance(65_000) {
            (stream.pick(WOMEN), "祖母")
        } else {
            (stream.pick(MEN), "祖父")
        });
    }
    let has_landline = stream.chance(30_000);
    let landline = number("099-000-", numbers_from.map(|from| from + 3), stream);
    let mut guardians = Vec::new();
    for (at, ((given, given_kana), relationship)) in (0u32..).zip(people) {
        let prefix = stream.pick(&["090-0000-", "080-0000-", "070-0000-"]);
        let is_parent = at < 2 && matches!(relationship, "母" | "父");
        guardians.push(Guardian {
            name: format!("{} {given}", family.0),
            kana: format!("{} {given_kana}", family.1),
            relationship,
            phone1: number(prefix, numbers_from.map(|from| from + at), stream),
            phone2: if has_landline && is_parent { landline.clone() } else { String::new() },
            email: if is_parent { format!("family{index:05}-{at}@example.jp") } else { String::new() },
            lives_with: is_parent && stream.chance(96_000),
        });
    }
    guardians
}

fn number(prefix: &str, fixed: Option<u32>, stream: &mut Stream) -> String {
    let drawn = stream.below(CANARY_NUMBERS_FROM);
    format!("{prefix}{:04}", fixed.unwrap_or(drawn))
}

/// The contacts of all pupils; `pupil_ids` are in the order of families and their children.
pub(crate) fn contacts(families: &[Family], pupil_ids: &[SourcedId]) -> Vec<GuardianContact> {
    let children = families.iter().flat_map(|family| family.children.iter().map(move |_| family));
    let mut contacts = Vec::new();
    for (family, student) in children.zip(pupil_ids) {
        for (priority, guardian) in (1u32..).zip(&family.guardians) {
            contacts.push(GuardianContact {
                student: student.clone(),
                priority,
                name: guardian.name.clone(),
                kana: guardian.kana.clone(),
                relationship: guardian.relationship.to_owned(),
                phone1: guardian.phone1.clone(),
                phone2: guardian.phone2.clone(),
                email: guardian.email.clone(),
                lives_with: Some(guardian.lives_with),
            });
        }
    }
    contacts
}

/// Family names that stand in the data and are borne by nobody.
pub(crate) fn canary_names(families: &[Family]) -> Vec<String> {
    families.iter().filter(|family| family.is_canary).map(|family| family.name.0.to_owned()).collect()
}

/// Mobile numbers of the families with those names.
pub(crate) fn canary_phones(families: &[Family]) -> Vec<String> {
    let canaries = families.iter().filter(|family| family.is_canary);
    canaries.flat_map(|family| family.guardians.iter().map(|guardian| guardian.phone1.clone())).collect()
}
