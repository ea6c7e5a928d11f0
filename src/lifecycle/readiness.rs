//! What a process waits for before it says that it is ready.

use std::borrow::Cow;
use std::sync::Arc;

use super::names::Names;

/// What must be warm before the process says that it is ready. Clones are the same readiness.
#[derive(Debug, Clone, Default)]
pub struct Readiness(Arc<Names>);

/// One thing that readiness waits for. Only [`Token::done`] ends the wait: a token that is merely dropped belonged to a part that died
/// while it started, and a process without that part must not say that it is ready.
#[derive(Debug)]
#[must_use = "readiness waits until this token is done"]
pub struct Token {
    readiness: Readiness,
    id: u64,
}

impl Readiness {
    pub fn new() -> Self {
        Self::default()
    }

    /// Take every token before anybody waits: without tokens the process is ready.
    pub fn token(&self, name: impl Into<Cow<'static, str>>) -> Token {
        Token { readiness: self.clone(), id: self.0.open(name.into()) }
    }

    /// What is still waited for, oldest first.
    pub fn missing(&self) -> Vec<Cow<'static, str>> {
        self.0.all()
    }

    pub fn is_ready(&self) -> bool {
        self.0.is_empty()
    }

    pub async fn wait(&self) {
        self.0.wait().await;
    }
}

impl Token {
    pub fn done(self) {
        self.readiness.0.close(self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn ready_when_the_last_token_is_done() {
        let readiness = Readiness::new();
        let (state, listener) = (readiness.token("flag state"), readiness.token("listener"));
        assert_eq!(readiness.missing(), ["flag state", "listener"]);
        let waiting = tokio::spawn({
            let readiness = readiness.clone();
            async move { readiness.wait().await }
        });
        listener.done();
        tokio::task::yield_now().await;
        assert!(!readiness.is_ready() && !waiting.is_finished());
        assert_eq!(readiness.missing(), ["flag state"]);
        state.done();
        waiting.await.unwrap();
        assert!(readiness.is_ready());
    }

    #[tokio::test]
    async fn a_part_that_died_while_it_started_is_never_ready() {
        let readiness = Readiness::new();
        drop(readiness.token("flag state"));
        assert_eq!(readiness.missing(), ["flag state"]);
    }
}
