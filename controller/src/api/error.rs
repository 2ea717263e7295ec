//! Errors at the API's edge: one table from what went wrong to status and Ironic's error body.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use wire::ApiFault;

use crate::config_drive::ConfigDriveError;
use crate::controller::PowerFault;
use crate::deploy::PlanError;
use crate::power::PowerError;
use crate::store::StoreError;

/// An error as the client sees it.
#[derive(Debug, PartialEq, Eq)]
pub struct ApiError {
    /// HTTP status.
    pub status: StatusCode,
    /// The text.
    pub text: String,
}

impl ApiError {
    /// 400.
    pub fn bad(text: impl Into<String>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, text: text.into() }
    }

    /// 404.
    pub fn missing(text: impl Into<String>) -> Self {
        Self { status: StatusCode::NOT_FOUND, text: text.into() }
    }

    /// 409.
    pub fn conflict(text: impl Into<String>) -> Self {
        Self { status: StatusCode::CONFLICT, text: text.into() }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let fault = ApiFault::new(self.status.as_u16(), self.text);
        (self.status, Json(fault.to_body())).into_response()
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        let text = capitalised(&error.to_string());
        match error {
            StoreError::NoNode(_) | StoreError::NoPort(_) => Self::missing(text),
            StoreError::Taken { .. } => Self::conflict(text),
            // As Ironic: a verb that does not fit the state is a bad request, not a conflict.
            StoreError::Conflict(_) | StoreError::Invalid(_) => Self::bad(text),
            StoreError::Unreadable(_) => Self::bad(text),
            StoreError::Sqlite(_) | StoreError::Damaged { .. } | StoreError::Thread => {
                tracing::error!(error = &error as &dyn std::error::Error, "the store failed");
                Self { status: StatusCode::INTERNAL_SERVER_ERROR, text }
            }
        }
    }
}

impl From<PowerFault> for ApiError {
    fn from(error: PowerFault) -> Self {
        match error {
            PowerFault::Store(error) => error.into(),
            PowerFault::Power(error) => {
                let text = capitalised(&error.to_string());
                let status = match error {
                    PowerError::Settings { .. } | PowerError::UnknownDriver { .. } => StatusCode::BAD_REQUEST,
                    PowerError::Failed { .. } | PowerError::Thread => StatusCode::INTERNAL_SERVER_ERROR,
                };
                Self { status, text }
            }
        }
    }
}

impl From<PlanError> for ApiError {
    fn from(error: PlanError) -> Self {
        Self::bad(error.to_string())
    }
}

impl From<ConfigDriveError> for ApiError {
    fn from(error: ConfigDriveError) -> Self {
        Self::bad(error.to_string())
    }
}

/// Ironic's texts are sentences.
fn capitalised(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// Any path that is not ours.
pub async fn no_such_path() -> ApiError {
    ApiError::missing("The resource could not be found.")
}

/// A path of ours with another method.
pub async fn no_such_method() -> ApiError {
    ApiError {
        status: StatusCode::METHOD_NOT_ALLOWED,
        text: "The method is not allowed for this resource.".into(),
    }
}
