//! Pupils: the list, the search, one of them.

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use serde::Deserialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::{Object, check_readable, input, list, tagged};
use crate::app::App;
use crate::body::{Parameters, Segments};
use crate::error::{ApiError, ErrorBody};
use crate::guard::Person;
use crate::search::{QUERY_CHARS_MAX, fold};
use crate::shape::{DisputedValue, STUDENT, STUDENT_LINE};
use crate::student_list::{enrolled, is_found, members};

/// Which pupils.
#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Filter {
    /// Id of a class: its homeroom pupils and those who are enrolled in it.
    #[serde(default)]
    class: String,
    /// Part of a name (kanji, kana, half-width kana) or of a pupil's number; at most 100 characters.
    #[serde(default)]
    q: String,
}

/// A pupil in a list.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what shape::STUDENT_LINE builds")]
pub struct StudentLine {
    /// Identifier in the roster.
    pub id: String,
    /// 姓.
    pub family_name: Option<String>,
    /// 名.
    pub given_name: Option<String>,
    /// 姓（カナ）.
    pub family_name_kana: Option<String>,
    /// 名（カナ）.
    pub given_name_kana: Option<String>,
    /// 通称名の姓.
    pub preferred_family_name: Option<String>,
    /// 通称名の名.
    pub preferred_given_name: Option<String>,
    /// 学籍番号.
    pub student_no: Option<String>,
    /// 学年 (P1 … H3).
    pub grade: Option<String>,
    /// Homeroom class.
    pub class_id: Option<String>,
    /// 出席番号.
    pub attendance_no: Option<u32>,
    /// Fields in which several values stand.
    pub disputed: Option<std::collections::BTreeMap<String, Vec<DisputedValue>>>,
}

/// Pupils.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what the handler builds")]
pub struct Students {
    /// In the order of class and attendance number.
    pub students: Vec<StudentLine>,
}

/// A pupil.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what shape::STUDENT builds")]
pub struct Student {
    /// As in a list.
    #[serde(flatten)]
    pub line: StudentLine,
    /// `"true"` or `"false"`.
    pub enrolled: Option<String>,
    /// Identifier that stays over transfers. Class II.
    pub user_master_identifier: Option<String>,
    /// 生年月日. Class II.
    pub birth_date: Option<String>,
    /// 性別. Class II.
    pub sex: Option<String>,
}

/// Lists enrolled pupils.
#[utoipa::path(get, path = "/api/v1/students", tag = "roster", params(Filter), responses(
    (status = 200, description = "Pupils by class and attendance number", body = Students),
    (status = 401, description = "sign_in_required", body = ErrorBody),
    (status = 404, description = "not_found: no such class", body = ErrorBody),
    (status = 503, description = "not_here_yet: being rebuilt; see Retry-After", body = ErrorBody)))]
pub async fn index(
    State(app): State<App>,
    person: Person,
    Parameters(filter): Parameters<Filter>,
) -> Result<Json<Value>, ApiError> {
    check_readable(&person, &STUDENT_LINE)?;
    if filter.q.chars().count() > QUERY_CHARS_MAX {
        return Err(ApiError::bad_parameter(
            "q",
            "The search text is too long: use at most 100 characters.",
            "検索の文字は100文字以内にしてください。",
        ));
    }
    let (viewer, class) = (person.viewer, filter.class.clone());
    let found = app
        .read(move |store| {
            let members = if filter.class.is_empty() { None } else { Some(members(store, &filter.class)?) };
            let query = fold(&filter.q);
            let mut students = enrolled(store)?;
            students.retain(|(id, student)| {
                let is_member = members.as_ref().is_none_or(|members| {
                    let is_enrolled = members.as_ref().is_some_and(|members| members.contains(id));
                    is_enrolled || student.text("class_id") == Some(class.as_str())
                });
                is_member && is_found(student, &query)
            });
            Ok((members.is_none_or(|members| members.is_some()), students))
        })
        .await?;
    let (is_known_class, students) = found;
    if !is_known_class {
        return Err(ApiError::not_found(Some("class")));
    }
    let show = |(id, student): (String, _)| {
        let mut line = Object::from_iter([("id".to_owned(), Value::from(id))]);
        viewer.show(&STUDENT_LINE, &student, &mut line);
        line
    };
    Ok(list("students", students.into_iter().map(show).collect()))
}

/// Shows one pupil, enrolled or not.
#[utoipa::path(get, path = "/api/v1/students/{id}", tag = "roster",
    params(("id" = String, Path, description = "Identifier of the pupil")), responses(
    (status = 200, description = "The pupil; class II fields only with a second factor", body = Student,
        headers(("ETag" = String, description = "Names what was seen"))),
    (status = 401, description = "sign_in_required", body = ErrorBody),
    (status = 404, description = "not_found", body = ErrorBody),
    (status = 503, description = "not_here_yet: being rebuilt; see Retry-After", body = ErrorBody)))]
pub async fn get(
    State(app): State<App>,
    person: Person,
    Segments(id): Segments<String>,
) -> Result<Response, ApiError> {
    check_readable(&person, &STUDENT)?;
    let student = input::student(app.store(), &id)?;
    let mut body = Object::from_iter([("id".to_owned(), Value::from(id))]);
    person.viewer.show(&STUDENT, &student, &mut body);
    Ok(tagged(person.viewer.etag(&STUDENT, Some(&student)), body))
}
