//! `dfsctl curl`: a request to the REST interface with the cluster's authority and our key, so that
//! nobody needs to hand either to curl.

use std::io::Write;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use serde_json::Value;

use super::{CliError, Context, Exit};
use crate::{Client, ErrorCode};

/// Answers of the REST interface are bounded; what is longer is not one.
const MAX_ANSWER_BYTES: usize = 64 << 20;

/// Send a request to the REST interface with this cluster's CA and key
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  dfsctl curl /nodes\n  dfsctl curl '/files?prefix=/docs/&delimiter=/'\n  dfsctl curl -X POST -d '{\"path\":\"/docs/empty\"}' /files\n  dfsctl curl -X DELETE /files/0190c5a0-0000-7000-8000-000000000000\n\nThe answer goes to standard output, whatever it is; the exit code is the one of its error."
)]
pub(crate) struct CurlArgs {
    /// Path with query, such as /nodes
    path: String,
    /// Default: GET, or POST with -d
    #[arg(short = 'X', long = "request", value_name = "METHOD")]
    method: Option<String>,
    /// Body; @FILE reads it, @- from standard input
    #[arg(short, long, value_name = "BODY")]
    data: Option<String>,
    /// Another header
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE")]
    headers: Vec<String>,
    /// Print status and headers too
    #[arg(short, long)]
    include: bool,
}

pub(crate) async fn run(args: CurlArgs, context: &Context) -> Result<(), CliError> {
    let client = context.client().await?;
    let body = match args.data.as_deref() {
        None => Bytes::new(),
        Some("@-") => crate::put::blocking(|| {
            let mut body = Vec::new();
            std::io::Read::read_to_end(&mut std::io::stdin(), &mut body).map(|_| body)
        })
        .await?
        .map_err(|error| CliError::io("reading standard input", error))?
        .into(),
        Some(text) => match text.strip_prefix('@') {
            Some(file) => tokio::fs::read(file)
                .await
                .map_err(|error| CliError::io(format_args!("reading {file}"), error))?
                .into(),
            None => Bytes::from(text.to_owned()),
        },
    };
    let method = args.method.as_deref().unwrap_or(if args.data.is_some() { "POST" } else { "GET" });
    let method = http::Method::from_bytes(method.to_ascii_uppercase().as_bytes())
        .map_err(|_| CliError::usage(format!("{method:?} is no method")))?;
    let answer = request(&client, &method, &args, body).await?;
    let status = answer.status();
    let mut head = String::new();
    if args.include {
        head = format!("{:?} {status}\n", answer.version());
        for (name, value) in answer.headers() {
            head.push_str(&format!("{name}: {}\n", String::from_utf8_lossy(value.as_bytes())));
        }
        head.push('\n');
    }
    let body = answer.into_body();
    let mut out = std::io::stdout();
    let newline = if body.is_empty() || body.ends_with(b"\n") { "" } else { "\n" };
    out.write_all(head.as_bytes())
        .and_then(|()| out.write_all(&body))
        .and_then(|()| out.write_all(newline.as_bytes()))
        .and_then(|()| out.flush())
        .map_err(|error| CliError::io("writing to standard output", error))?;
    if status.is_success() || status.is_redirection() {
        return Ok(());
    }
    let problem: Value = serde_json::from_slice(&body).unwrap_or_default();
    let code = problem["code"].as_str().and_then(ErrorCode::from_word);
    let mut error = CliError::failed(format!("the server answered {status}"));
    error.exit = code.map_or(Exit::Failed, Exit::from);
    error.code = code.map_or("http", ErrorCode::as_str);
    Err(error)
}

/// Sends to the first metadata server that can be reached. Never twice: it may be a change.
async fn request(
    client: &Client,
    method: &http::Method,
    args: &CurlArgs,
    body: Bytes,
) -> Result<http::Response<Bytes>, CliError> {
    let uri: http::Uri = args
        .path
        .parse()
        .ok()
        .filter(|uri: &http::Uri| uri.scheme().is_none() && uri.path().starts_with('/'))
        .ok_or_else(|| {
            CliError::usage(format!(
                "{:?} is no path: write /nodes, and %-encode other characters",
                args.path
            ))
        })?;
    let inner = &client.inner;
    let mut last = None;
    for address in &inner.config.metadata {
        let expect = crate::dial::metadata_server();
        let stream = match inner.dials.dialer().open(address, &expect, &[b"http/1.1"]).await {
            Ok(stream) => stream,
            Err(error) => {
                last = Some(crate::DfsError::from(error));
                continue;
            }
        };
        let failed = |error: hyper::Error| {
            let message = format!("{address} did not answer: {error}");
            CliError::from(crate::DfsError::new(ErrorCode::Unavailable, message))
        };
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
        tokio::spawn(connection);
        let mut request = http::Request::builder()
            .method(method.clone())
            .uri(uri.clone())
            .header("host", address)
            .header("authorization", inner.rpc.authorization().as_bytes());
        if args.data.is_some()
            && !args.headers.iter().any(|header| header.to_ascii_lowercase().starts_with("content-type"))
        {
            request = request.header("content-type", "application/json");
        }
        for header in &args.headers {
            let (name, value) = header
                .split_once(':')
                .ok_or_else(|| CliError::usage(format!("{header:?} is no header: write NAME: VALUE")))?;
            request = request.header(name.trim(), value.trim());
        }
        let request = request
            .body(Full::new(body))
            .map_err(|error| CliError::usage(format!("that is no request: {error}")))?;
        let exchange = async {
            let answer = sender.send_request(request).await.map_err(failed)?;
            let (head, body) = answer.into_parts();
            let body = http_body_util::Limited::new(body, MAX_ANSWER_BYTES)
                .collect()
                .await
                .map_err(|error| CliError::failed(format!("the answer broke off: {error}")))?;
            Ok(http::Response::from_parts(head, body.to_bytes()))
        };
        // Some answers wait for a whole election.
        return match tokio::time::timeout(2 * inner.config.operation_deadline, exchange).await {
            Ok(answer) => answer,
            Err(_) => {
                let message = format!("{address} did not answer in time");
                Err(crate::DfsError::new(ErrorCode::Timeout, message).into())
            }
        };
    }
    let error = last
        .unwrap_or_else(|| crate::DfsError::new(ErrorCode::Unavailable, "no metadata address is configured"));
    Err(error.into())
}
