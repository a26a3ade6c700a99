//! How the API says no: one JSON shape, in English and Japanese, ending with what to do next.
//!
//! ```json
//! {"error":{"code":"bad_value","text":"…","text_ja":"…","field":"code"}}
//! ```
//! **Invariant**: a text never repeats what the client sent, and never a cause inside the box.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use sonae_proto::ids::Tier;
use sonae_store::{NotYet, ViewError, WriteError};
use sonae_trust::policy::DenyCode;
use utoipa::ToSchema;

use crate::rebuilding::{Attempt, not_yet};

/// What went wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct ErrorDetail {
    /// A stable name, for programs.
    pub code: String,
    /// What happened and what to do next, in English.
    pub text: String,
    /// The same in Japanese.
    pub text_ja: String,
    /// The field or parameter that is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
}

/// The body of every error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct ErrorBody {
    /// What went wrong.
    pub error: ErrorDetail,
}

/// An answer that says no.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiError {
    pub status: StatusCode,
    pub detail: ErrorDetail,
    pub retry_after_s: Option<u64>,
}

impl ApiError {
    pub fn new(status: StatusCode, code: &str, text: &str, text_ja: &str) -> Self {
        let detail =
            ErrorDetail { code: code.into(), text: text.into(), text_ja: text_ja.into(), field: None };
        Self { status, detail, retry_after_s: None }
    }

    fn on(mut self, field: &str) -> Self {
        self.detail.field = Some(field.to_owned());
        self
    }

    pub fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after_s = Some(seconds);
        self
    }

    /// A value that cannot be taken: 422 with the field's name.
    pub fn bad_value(field: &str, text: &str, text_ja: &str) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "bad_value", text, text_ja).on(field)
    }

    /// A parameter of the address that is wrong.
    pub fn bad_parameter(field: &str, text: &str, text_ja: &str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_parameter", text, text_ja).on(field)
    }

    /// The body is not what the route takes.
    pub fn bad_body(text: &str, text_ja: &str, field: Option<&str>) -> Self {
        let error = Self::new(StatusCode::BAD_REQUEST, "bad_body", text, text_ja);
        match field {
            Some(field) => error.on(field),
            None => error,
        }
    }

    pub fn too_large() -> Self {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "too_large",
            "The body is over 64 KiB: send less at a time.",
            "送信内容が大きすぎます（64KiBまで）。分けて送ってください。",
        )
    }

    pub fn media_type() -> Self {
        Self::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "media_type",
            "The body must be JSON: send Content-Type: application/json.",
            "本文はJSONで送ってください（Content-Type: application/json）。",
        )
    }

    pub fn not_found(field: Option<&str>) -> Self {
        let error = Self::new(
            StatusCode::NOT_FOUND,
            "not_found",
            "There is no such record or page: look it up in the list again.",
            "見つかりません。一覧から選び直してください。",
        );
        match field {
            Some(field) => error.on(field),
            None => error,
        }
    }

    pub fn method() -> Self {
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "method_not_allowed",
            "This address does not take this method: see /api/v1/openapi.json.",
            "この操作はできません。/api/v1/openapi.json を確認してください。",
        )
    }

    pub fn sign_in_first() -> Self {
        Self::new(
            StatusCode::UNAUTHORIZED,
            "sign_in_required",
            "You are not signed in, or the session has ended: sign in again.",
            "サインインしていないか、時間が切れました。もう一度サインインしてください。",
        )
    }

    /// One answer for every wrong login, password and code, so that it tells none of them apart.
    pub fn bad_credentials() -> Self {
        Self::new(
            StatusCode::UNAUTHORIZED,
            "bad_credentials",
            "Login, password or code is wrong: check them and try again. A code works only once.",
            "ログイン名、パスワード、確認コードのどれかが違います。確かめてもう一度入力してください。\
             確認コードは一度しか使えません。",
        )
    }

    pub fn locked(retry_after_s: u64) -> Self {
        Self::new(
            StatusCode::TOO_MANY_REQUESTS,
            "locked",
            "Too many attempts: wait as long as Retry-After says, then try again.",
            "試した回数が多すぎます。しばらく待ってからもう一度サインインしてください。",
        )
        .retry_after(retry_after_s)
    }

    pub fn busy() -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "busy",
            "Many people are signing in at once: try again in a few seconds.",
            "サインインが混み合っています。数秒待ってからもう一度お試しください。",
        )
        .retry_after(3)
    }

    pub fn denied(code: DenyCode, field: Option<&str>) -> Self {
        let (text, text_ja) = match code {
            DenyCode::SecondFactorRequired => (
                "This needs a second factor: sign in again with the code of your authenticator app.",
                "確認コードが必要です。認証アプリのコードを入れてサインインし直してください。",
            ),
            DenyCode::Forbidden => (
                "Your role does not allow this: ask the principal's office.",
                "この役職では操作できません。管理職に相談してください。",
            ),
        };
        let error = Self::new(StatusCode::FORBIDDEN, code.as_str(), text, text_ja);
        match field {
            Some(field) => error.on(field),
            None => error,
        }
    }

    pub fn cross_site() -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            "cross_site",
            "The request does not come from this service's own pages: open the page again, or send the header \
             X-Sonae: 1.",
            "このサービスの画面以外からの操作は受け付けません。画面を開き直してください。",
        )
    }

    /// Nobody knows whether a write that took too long is kept: say so.
    pub fn timeout() -> Self {
        Self::new(
            StatusCode::GATEWAY_TIMEOUT,
            "timeout",
            "This took too long. A change may or may not have been kept: open it again and look.",
            "時間がかかりすぎました。保存できたかどうか分かりません。開き直して確かめてください。",
        )
    }

    pub fn internal() -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "This box could not read its data: try again, then restart the box and tell the board.",
            "データを読めませんでした。もう一度試し、だめなら再起動して教育委員会に連絡してください。",
        )
    }
}

impl ApiError {
    /// The disk is nearly full: what is refused, and what goes on all the same.
    fn no_room(tier: Tier) -> Self {
        let (text, text_ja) = match tier {
            Tier::Archive => (
                "Nothing was saved: this box has little room left, so marks and school records are not taken now. \
                 Attendance, the diary and safety checks go on. Tell the board, and enter it again later.",
                "保存できていません。この装置の空き容量が少ないため、成績・指導要録などの入力を止めています。\
                 出欠・日誌・安全確認は続けて入力できます。教育委員会に連絡し、あとでもう一度入力してください。",
            ),
            Tier::Daily | Tier::Safety => (
                "Nothing was saved: this box has almost no room left, so attendance, diary, marks and imports are \
                 not taken now. Safety checks, hand-over and contacts go on. Tell the board, and enter it again \
                 later.",
                "保存できていません。この装置の空き容量がほとんどないため、出欠・日誌・成績の入力と取り込みを\
                 止めています。安全確認・引き渡し・連絡先は続けて入力できます。教育委員会に連絡し、\
                 あとでもう一度入力してください。",
            ),
        };
        Self::new(StatusCode::INSUFFICIENT_STORAGE, "no_room", text, text_ja)
    }
}

impl From<ViewError> for ApiError {
    fn from(error: ViewError) -> Self {
        if let ViewError::NotYet(NotYet { tier }) = error {
            return not_yet(tier, Attempt::Read);
        }
        log::error!(error:err; "a read failed");
        Self::internal()
    }
}

impl From<WriteError> for ApiError {
    fn from(error: WriteError) -> Self {
        log::warn!(error:err; "a write was not kept");
        match error {
            WriteError::Refused { .. } => Self::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "refused",
                "Nothing was saved: the change is over a limit. Shorten it and send it again.",
                "保存できていません。内容が長すぎるか多すぎます。短くして、もう一度入力してください。",
            ),
            WriteError::Erased => Self::new(
                StatusCode::GONE,
                "erased",
                "Nothing was saved: this record was erased for good. Ask the board.",
                "保存できていません。この記録は完全に消去されたため、書き込めません。教育委員会に確認してください。",
            ),
            WriteError::NoRoom { tier } => Self::no_room(tier),
            WriteError::Full => Self::new(
                StatusCode::INSUFFICIENT_STORAGE,
                "disk_full",
                "Nothing was saved: the disk of this box is full. Write on paper and call the board.",
                "保存できていません。紙に書いてください（空き容量がありません。教育委員会に連絡してください）。",
            ),
            WriteError::Held => Self::new(
                StatusCode::FORBIDDEN,
                "held",
                "Nothing was saved: the board has not released this box yet, so you can read here and not write. Write \
                 at another box or on paper, and ask the board to release this one.",
                "保存できていません。この装置は教育委員会の確認が済むまで、見るだけです。別の装置か紙に記録し、\
                 教育委員会に確認を頼んでください。",
            ),
            WriteError::NotYet(NotYet { tier }) => not_yet(tier, Attempt::Write),
            WriteError::Moving => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "moving",
                "Nothing was saved: this box is changing over. Save it again in a moment.",
                "保存できていません。この装置を切り替えています。少し待って、もう一度保存してください。",
            ),
            WriteError::Failed => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "not_saved",
                "Nothing was saved: the disk of this box fails. Write on paper and restart the box.",
                "保存できていません。紙に書いてください",
            ),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(ErrorBody { error: self.detail })).into_response();
        if let Some(seconds) = self.retry_after_s {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: each way in which nothing was kept has its status, its code and the sentence that people know.
    /// Method: rows.
    #[test]
    fn nothing_was_kept() {
        let rows = [
            (WriteError::Refused { reason: "SECRET".into() }, 422, "refused"),
            (WriteError::Erased, 410, "erased"),
            (WriteError::NoRoom { tier: Tier::Daily }, 507, "no_room"),
            (WriteError::NoRoom { tier: Tier::Archive }, 507, "no_room"),
            (WriteError::Full, 507, "disk_full"),
            (WriteError::Held, 403, "held"),
            (WriteError::NotYet(NotYet { tier: Tier::Daily }), 503, "not_here_yet"),
            (WriteError::NotYet(NotYet { tier: Tier::Safety }), 503, "not_here_yet"),
            (WriteError::Moving, 503, "moving"),
            (WriteError::Failed, 503, "not_saved"),
        ];
        for (error, status, code) in rows {
            let error = ApiError::from(error);
            assert_eq!((error.status.as_u16(), error.detail.code.as_str()), (status, code));
            assert!(error.detail.text_ja.starts_with("保存できていません"), "{code}");
            assert!(!error.detail.text.contains("SECRET"), "{code}");
        }
        for tier in [Tier::Daily, Tier::Archive] {
            let detail = ApiError::from(WriteError::NoRoom { tier }).detail;
            assert!(detail.text_ja.contains("続けて入力できます") && detail.text.contains("go on"), "{tier}");
            assert!(!detail.text_ja.contains("紙に"), "{tier}: something is still kept");
        }
        assert_eq!(
            ApiError::from(WriteError::Failed).detail.text_ja,
            "保存できていません。紙に書いてください"
        );
    }

    /// Goal: waits are told in the header too. Method: one answer.
    #[test]
    fn waits() {
        let response = ApiError::locked(7).into_response();
        assert_eq!(response.headers()[header::RETRY_AFTER], "7");
        assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
    }
}
