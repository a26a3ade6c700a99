//! Classes.

use axum::Json;
use axum::extract::State;
use serde_json::Value;
use utoipa::ToSchema;

use super::{Object, check_readable, list};
use crate::app::App;
use crate::error::{ApiError, ErrorBody};
use crate::guard::Person;
use crate::shape::{CLASS, DisputedValue};
use crate::student_list::classes;

/// A class.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what shape::CLASS builds")]
pub struct Class {
    /// Identifier in the roster.
    pub id: String,
    /// 学級名.
    pub title: Option<String>,
    /// 学年, separated by commas.
    pub grades: Option<String>,
    /// `homeroom` or `scheduled`.
    pub class_type: Option<String>,
    /// 年度.
    pub school_year: Option<String>,
    /// Fields in which several values stand.
    pub disputed: Option<std::collections::BTreeMap<String, Vec<DisputedValue>>>,
}

/// Classes.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what the handler builds")]
pub struct Classes {
    /// In the order of grade and title.
    pub classes: Vec<Class>,
}

/// Lists all classes.
#[utoipa::path(get, path = "/api/v1/classes", tag = "roster", responses(
    (status = 200, description = "Classes by grade and title", body = Classes),
    (status = 401, description = "sign_in_required", body = ErrorBody),
    (status = 503, description = "not_here_yet: being rebuilt; see Retry-After", body = ErrorBody)))]
pub async fn index(State(app): State<App>, person: Person) -> Result<Json<Value>, ApiError> {
    check_readable(&person, &CLASS)?;
    let classes = app.read(classes).await?;
    let show = |(id, class): (String, _)| {
        let mut line = Object::from_iter([("id".to_owned(), Value::from(id))]);
        person.viewer.show(&CLASS, &class, &mut line);
        line
    };
    Ok(list("classes", classes.into_iter().map(show).collect()))
}
