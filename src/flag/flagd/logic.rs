//! JsonLogic as it is put together: what is known beforehand is not written.

use serde_json::{Value as Json, json};

/// A condition.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Truth {
    Always,
    Never,
    Depends(Json),
}

impl Truth {
    pub(super) fn not(self) -> Self {
        match self {
            Self::Always => Self::Never,
            Self::Never => Self::Always,
            Self::Depends(json) => Self::Depends(operator("!", [json])),
        }
    }

    pub(super) fn all(truths: impl IntoIterator<Item = Self>) -> Self {
        Self::joined("and", Self::Always, Self::Never, truths)
    }

    pub(super) fn any(truths: impl IntoIterator<Item = Self>) -> Self {
        Self::joined("or", Self::Never, Self::Always, truths)
    }

    fn joined(name: &str, neutral: Self, decisive: Self, truths: impl IntoIterator<Item = Self>) -> Self {
        let mut parts = Vec::new();
        for truth in truths {
            match truth {
                Self::Depends(json) => parts.push(json),
                known if known == decisive => return decisive,
                _ => {}
            }
        }
        match parts.len() {
            0 => neutral,
            1 => parts.pop().map_or(neutral, Self::Depends),
            _ => Self::Depends(operator(name, parts)),
        }
    }
}

pub(super) fn operator(name: &str, operands: impl IntoIterator<Item = Json>) -> Json {
    json!({ name: operands.into_iter().collect::<Vec<_>>() })
}

pub(super) fn asks(name: &str, operands: impl IntoIterator<Item = Json>) -> Truth {
    Truth::Depends(operator(name, operands))
}

pub(super) fn var(name: &str) -> Json {
    json!({ "var": name })
}
