//! Owns the step from families to a roster: school, classes, staff, enrolments.
//!
//! Invariants: a class has at most 35 pupils, one for special needs at most 8; attendance numbers count from 1
//! in the order of kana; every class has one teacher who is responsible for it. Leaves out: subjects.

use sonae_roster::{
    AcademicSession, Class, ClassType, Course, Demographics, Enrollment, EnrollmentRole, Extra, Manifest,
    Org, OrgType, Role, RoleAssignment, RoleType, Roster, SessionType, Sex, SourcedId, User,
};
use time::{Date, Duration, Month};

use super::Options;
use super::families::{Child, Family};
use super::names::{FAMILY, MEN, Name, SCHOOLS, WOMEN};
use super::random::Source;

/// Pupils of a class by law since 2021 (35人学級).
const CLASS_PUPILS_MAX: usize = 35;

/// Pupils of a class for special needs by law.
const SPECIAL_PUPILS_MAX: usize = 8;

/// Of how many pupils one is in the class for special needs. The real share is about 4 %; one class will do.
const SPECIAL_ONE_OF: usize = 100;

/// A roster and what the other files need of it.
pub(crate) struct Built {
    pub(crate) roster: Roster,
    pub(crate) school_code: String,
    pub(crate) school_name: String,
    /// In the order of families and their children.
    pub(crate) pupil_ids: Vec<SourcedId>,
}

/// A pupil on the way into a class.
struct Pupil<'a> {
    id: SourcedId,
    family: Name,
    child: &'a Child,
}

struct Builder<'a> {
    source: &'a Source,
    options: &'a Options,
    school: SourcedId,
    course: SourcedId,
    term: SourcedId,
    roster: Roster,
    staff_count: usize,
}

/// Builds the roster.
pub(crate) fn build(source: &Source, families: &[Family], options: &Options) -> Built {
    let mut stream = source.stream("school", 0);
    // B1 is a primary school, 2 a public founder; prefectures end at 47, so 49 marks it as invented.
    let school_code = format!("B1492{:07}{}", stream.below(10_000_000), stream.below(10));
    let school_name = format!("架空市立{}小学校", stream.pick(SCHOOLS));
    let mut builder = Builder {
        source,
        options,
        school: make_id(source, "school", 0),
        course: make_id(source, "course", 0),
        term: make_id(source, "term", 0),
        roster: Roster::default(),
        staff_count: 0,
    };
    builder.add_frame(&school_code, &school_name);
    let children =
        families.iter().flat_map(|family| family.children.iter().map(move |child| (family, child)));
    let pupils: Vec<Pupil<'_>> = children
        .enumerate()
        .map(|(at, (family, child))| Pupil { id: make_id(source, "pupil", at), family: family.name, child })
        .collect();
    let pupil_ids = pupils.iter().map(|pupil| pupil.id.clone()).collect();
    builder.add_leaders();
    builder.add_classes(&pupils);
    Built { roster: builder.roster, school_code, school_name, pupil_ids }
}

fn make_id(source: &Source, label: &str, index: usize) -> SourcedId {
    SourcedId::new(source.uuid(label, index).to_string())
}

fn date(year: i32, month: Month, day: u8) -> Date {
    Date::from_calendar_date(year, month, day).unwrap_or(Date::MIN)
}

impl Builder<'_> {
    /// Board, school, year and course.
    fn add_frame(&mut self, school_code: &str, school_name: &str) {
        let year = self.options.school_year;
        let board = make_id(self.source, "board", 0);
        let org = |id: &SourcedId, name: &str, org_type, identifier: &str, parent| Org {
            id: id.clone(),
            name: name.to_owned(),
            org_type,
            identifier: identifier.to_owned(),
            parent,
            extra: Extra::new(),
        };
        self.roster.manifest = Manifest {
            source_name: "Sonae school generator".to_owned(),
            source_code: "sonae-chaos".to_owned(),
        };
        self.roster.orgs = vec![
            org(&board, "架空市教育委員会", OrgType::District, "990010", None),
            org(&self.school, school_name, OrgType::School, school_code, Some(board.clone())),
        ];
        self.roster.academic_sessions = vec![AcademicSession {
            id: self.term.clone(),
            title: format!("{year}年度"),
            session_type: SessionType::SchoolYear,
            start: date(year, Month::April, 1),
            end: date(year.saturating_add(1), Month::March, 31),
            parent: None,
            school_year: year.to_string(),
            extra: Extra::new(),
        }];
        self.roster.courses = vec![Course {
            id: self.course.clone(),
            school_year: Some(self.term.clone()),
            title: format!("{year}年度ホームルーム"),
            course_code: String::new(),
            grades: Vec::new(),
            org: self.school.clone(),
            subjects: Vec::new(),
            subject_codes: Vec::new(),
            extra: Extra::new(),
        }];
    }

    /// Principal, vice principal, nurse and office. OneRoster has no words for the last three; the extension
    /// says what they are.
    fn add_leaders(&mut self) {
        for role in [
            Role::Principal,
            Role::Ext("ext:vicePrincipal".to_owned()),
            Role::Ext("ext:schoolNurse".to_owned()),
            Role::Ext("ext:officeStaff".to_owned()),
        ] {
            self.add_staff(role);
        }
    }

    fn add_classes(&mut self, pupils: &[Pupil<'_>]) {
        let special_count = (pupils.len() / SPECIAL_ONE_OF).min(SPECIAL_PUPILS_MAX);
        // Spread over the grades; the first families are canaries and stay in ordinary classes.
        let is_special = |at: usize| at % SPECIAL_ONE_OF == 61 && at / SPECIAL_ONE_OF < special_count;
        let (special, ordinary): (Vec<_>, Vec<_>) =
            pupils.iter().enumerate().partition(|(at, _)| is_special(*at));
        let special: Vec<_> = special.into_iter().map(|(_, pupil)| pupil).collect();
        for grade in 1..=6u8 {
            let of_grade = ordinary.iter().filter(|(_, pupil)| pupil.child.grade == grade);
            let of_grade: Vec<_> = of_grade.map(|(_, pupil)| *pupil).collect();
            let classes = of_grade.len().div_ceil(CLASS_PUPILS_MAX);
            for number in 0..classes {
                let members = of_grade.iter().skip(number).step_by(classes).copied().collect();
                self.add_class(&format!("{grade}年{}組", number + 1), members, false);
            }
        }
        if !special.is_empty() {
            self.add_class("ひまわり学級", special, true);
        }
    }

    fn add_class(&mut self, title: &str, mut members: Vec<&Pupil<'_>>, is_special: bool) {
        members.sort_by_key(|pupil| (pupil.family.1, pupil.child.given.1, pupil.id.clone()));
        let mut grades: Vec<String> = members.iter().map(|pupil| format!("P{}", pupil.child.grade)).collect();
        grades.sort();
        grades.dedup();
        let class = make_id(self.source, "class", self.roster.classes.len());
        self.roster.classes.push(Class {
            id: class.clone(),
            title: title.to_owned(),
            grades,
            course: self.course.clone(),
            class_code: String::new(),
            class_type: ClassType::Homeroom,
            location: String::new(),
            school: self.school.clone(),
            terms: vec![self.term.clone()],
            subjects: Vec::new(),
            subject_codes: Vec::new(),
            periods: Vec::new(),
            special_needs: Some(is_special),
            extra: Extra::new(),
        });
        let teacher = self.add_staff(Role::Teacher);
        self.enroll(&class, &teacher, EnrollmentRole::Teacher, None);
        for (number, pupil) in (1u32..).zip(members) {
            self.add_pupil(pupil, &class);
            self.enroll(&class, &pupil.id, EnrollmentRole::Student, Some(number));
        }
    }

    /// Adds somebody of the staff and returns the identifier.
    fn add_staff(&mut self, role: Role) -> SourcedId {
        let at = self.staff_count;
        self.staff_count += 1;
        let mut stream = self.source.stream("staff", u64::try_from(at).unwrap_or(u64::MAX));
        let id = make_id(self.source, "staff", at);
        let family = stream.pick(FAMILY);
        let given_names = if stream.chance(62_000) { WOMEN } else { MEN };
        let given = stream.pick(given_names);
        let master = make_id(self.source, "staff master", at);
        let username = format!("t{:04}@example.jp", at + 1);
        self.add_user(user(id.clone(), master, username, family, given, &self.school), role);
        id
    }

    fn add_pupil(&mut self, pupil: &Pupil<'_>, class: &SourcedId) {
        let at = self.roster.demographics.len();
        let entered = self.options.school_year.saturating_sub(i32::from(pupil.child.grade) - 1);
        let born_from = date(entered.saturating_sub(7), Month::April, 2);
        let birth_date = born_from.checked_add(Duration::days(i64::from(pupil.child.birthday_offset)));
        let master = make_id(self.source, "pupil master", at);
        let username = format!("s{entered}{:04}@example.jp", at + 1);
        let mut user =
            user(pupil.id.clone(), master, username, pupil.family, pupil.child.given, &self.school);
        user.identifier = format!("{entered}{:04}", at + 1);
        user.grades = vec![format!("P{}", pupil.child.grade)];
        user.home_class = Some(class.clone());
        self.add_user(user, Role::Student);
        let sex = if pupil.child.is_girl { Sex::Female } else { Sex::Male };
        let extra = Extra::new();
        self.roster.demographics.push(Demographics {
            user: pupil.id.clone(),
            birth_date,
            sex: Some(sex),
            extra,
        });
    }

    fn add_user(&mut self, user: User, role: Role) {
        self.roster.roles.push(RoleAssignment {
            id: make_id(self.source, "role", self.roster.roles.len()),
            user: user.id.clone(),
            role_type: RoleType::Primary,
            role,
            begin: None,
            end: None,
            org: self.school.clone(),
            extra: Extra::new(),
        });
        self.roster.users.push(user);
    }

    fn enroll(&mut self, class: &SourcedId, user: &SourcedId, role: EnrollmentRole, number: Option<u32>) {
        let year = self.options.school_year;
        let is_teacher = role == EnrollmentRole::Teacher;
        self.roster.enrollments.push(Enrollment {
            id: make_id(self.source, "enrollment", self.roster.enrollments.len()),
            class: class.clone(),
            school: self.school.clone(),
            user: user.clone(),
            role,
            primary: Some(is_teacher),
            begin: Some(date(year, Month::April, 1)),
            end: Some(date(year.saturating_add(1), Month::March, 31)),
            attendance_number: number,
            in_public_register: number.map(|_| true),
            extra: Extra::new(),
        });
    }
}

/// A person with the names that every edition of the profile wants.
fn user(
    id: SourcedId,
    master: SourcedId,
    username: String,
    family: Name,
    given: Name,
    school: &SourcedId,
) -> User {
    User {
        id,
        enabled: true,
        username,
        user_ids: Vec::new(),
        given_name: given.0.to_owned(),
        family_name: family.0.to_owned(),
        middle_name: String::new(),
        identifier: String::new(),
        email: String::new(),
        sms: String::new(),
        phone: String::new(),
        agents: Vec::new(),
        grades: Vec::new(),
        master_identifier: Some(master),
        resources: Vec::new(),
        preferred_given_name: given.0.to_owned(),
        preferred_middle_name: String::new(),
        preferred_family_name: family.0.to_owned(),
        primary_org: Some(school.clone()),
        pronouns: String::new(),
        kana_given_name: given.1.to_owned(),
        kana_family_name: family.1.to_owned(),
        kana_middle_name: String::new(),
        home_class: None,
        kana_preferred_family_name: String::new(),
        kana_preferred_given_name: String::new(),
        kana_preferred_middle_name: String::new(),
        extra: Extra::new(),
    }
}
