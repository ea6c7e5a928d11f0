//! The floor of a gRPC server: tonic as its guide shows it, with our messages, decoding each question and encoding an answer of the same
//! size without deciding anything.

use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use tokio_stream::wrappers::{TcpListenerStream, UnixListenerStream};
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};

use super::Bound;
use crate::wire::v1::evaluation_server::{Evaluation, EvaluationServer};
use crate::wire::v1::{
    Decision, EvaluateBatchRequest, EvaluateBatchResponse, EvaluateRequest, EvaluateResponse, EvaluateStreamRequest,
    EvaluateStreamResponse, Reason, WatchFlagsRequest, WatchFlagsResponse, evaluate_stream_response,
};

pub fn serve(bound: Bound) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let (tcp, unix) = bound.for_tokio()?;
        let tcp = TcpListenerStream::new(tcp).inspect(|stream| {
            // tonic leaves the sockets of a given listener as they are.
            let _ = stream.as_ref().map(|stream| stream.set_nodelay(true));
        });
        let by_tcp = Server::builder().serve_with_incoming(EvaluationServer::new(Echo), tcp);
        let by_unix = Server::builder().serve_with_incoming(EvaluationServer::new(Echo), UnixListenerStream::new(unix));
        tokio::try_join!(by_tcp, by_unix)?;
        Ok(())
    })
}

struct Echo;

fn decision(flag_key: String) -> Decision {
    Decision {
        flag_key,
        value: Some(prost_types::Value { kind: Some(prost_types::value::Kind::BoolValue(true)) }),
        variant: "on".to_owned(),
        reason: Reason::Split.into(),
        rule: "rollout".to_owned(),
        bucket: Some(123_456),
        revision: 1,
        age_ms: 1,
        ..Decision::default()
    }
}

#[tonic::async_trait]
impl Evaluation for Echo {
    async fn evaluate(&self, request: Request<EvaluateRequest>) -> Result<Response<EvaluateResponse>, Status> {
        Ok(Response::new(EvaluateResponse { decision: Some(decision(request.into_inner().flag_key)) }))
    }

    async fn evaluate_batch(&self, request: Request<EvaluateBatchRequest>) -> Result<Response<EvaluateBatchResponse>, Status> {
        let keys = request.into_inner().selector.unwrap_or_default().keys;
        Ok(Response::new(EvaluateBatchResponse { decisions: keys.into_iter().map(decision).collect(), position: None }))
    }

    type EvaluateStreamStream = BoxStream<'static, Result<EvaluateStreamResponse, Status>>;

    async fn evaluate_stream(
        &self,
        request: Request<Streaming<EvaluateStreamRequest>>,
    ) -> Result<Response<Self::EvaluateStreamStream>, Status> {
        let answers = request.into_inner().map(|question| {
            let EvaluateStreamRequest { id, request } = question?;
            let decision = decision(request.unwrap_or_default().flag_key);
            Ok(EvaluateStreamResponse { id, result: Some(evaluate_stream_response::Result::Decision(decision)) })
        });
        Ok(Response::new(answers.boxed()))
    }

    type WatchFlagsStream = BoxStream<'static, Result<WatchFlagsResponse, Status>>;

    async fn watch_flags(&self, _: Request<WatchFlagsRequest>) -> Result<Response<Self::WatchFlagsStream>, Status> {
        Err(Status::unimplemented("the echo has no flags to watch"))
    }
}
