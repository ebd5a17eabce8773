//! HTTP/1.1 by hand: a fake must be able to reset a connection after it did what was asked, to stop in
//! the middle of an answer, and to do neither at 10,000 requests a second.

use std::fmt::Write as _;
use std::future::pending;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::routes;
use super::world::{Fault, World};

/// A request, as far as the fake looks at it.
pub struct Request {
    pub method: String,
    /// Path segments below the base path, decoded.
    pub path: Vec<String>,
    pub query: Vec<(String, String)>,
    pub authorization: Option<String>,
    /// All that came before the body.
    pub head: String,
    pub body: Vec<u8>,
    pub arrived: Instant,
}

impl Request {
    /// The value of a query parameter.
    pub fn param(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// An answer.
pub struct Response {
    pub status: u16,
    pub content_type: &'static str,
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
}

impl Response {
    pub fn json(status: u16, body: &serde_json::Value) -> Self {
        Self::text(status, "application/json", body.to_string())
    }

    pub fn text(status: u16, content_type: &'static str, body: impl Into<Vec<u8>>) -> Self {
        Self { status, content_type, headers: Vec::new(), body: body.into() }
    }
}

pub async fn bind(address: &str) -> TcpListener {
    // A fake that takes over another's address may have to wait until that one is gone.
    for _ in 0..200 {
        if let Ok(listener) = TcpListener::bind(address).await {
            return listener;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{address} stays occupied");
}

pub async fn accept(listener: TcpListener, world: Arc<Mutex<World>>) {
    // Connections end with the set, so with this task.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                if let Ok((stream, _)) = accepted {
                    connections.spawn(serve(stream, Arc::clone(&world)));
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn serve(mut stream: TcpStream, world: Arc<Mutex<World>>) {
    let _ = stream.set_nodelay(true);
    let mut buffer = Vec::with_capacity(4096);
    loop {
        let Some((mut request, used)) = read_request(&mut stream, &mut buffer).await else { return };
        buffer.drain(..used);
        let (fault, latency, write, response) = {
            let mut world = world.lock().unwrap_or_else(PoisonError::into_inner);
            let base: Vec<String> =
                world.base_path.split('/').filter(|part| !part.is_empty()).map(str::to_owned).collect();
            let below = request.path.starts_with(&base);
            request.path.drain(..base.len().min(request.path.len()));
            let last = request.path.last().map(String::as_str);
            let fault = world.next_fault(&request.method, last, routes::is_prone_to_faults(&request));
            world.hung += u64::from(matches!(fault, Some(Fault::HangBefore | Fault::HangAfter)));
            let response = if below { answer(&mut world, &request, fault) } else { Some(routes::not_found_page()) };
            let write = routes::is_write(&request).then(|| world.begin_write(request.body.len())).flatten();
            (fault, world.latency, write, response.map(|response| render(&world, &response)))
        };
        if let Some(work) = write {
            tokio::time::sleep(work).await;
            world.lock().unwrap_or_else(PoisonError::into_inner).end_write();
        }
        if !latency.is_zero() {
            tokio::time::sleep(latency).await;
        }
        match (fault, response) {
            (Some(Fault::HangBefore | Fault::HangAfter), _) => return pending().await,
            (_, None) => {
                let _ = stream.set_zero_linger();
                return;
            }
            (Some(Fault::Truncated), Some(response)) => {
                let _ = stream.write_all(&response[..response.len() - 20.min(response.len())]).await;
                return;
            }
            (_, Some(response)) => {
                if stream.write_all(&response).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// The answer under this fault; `None` is none at all.
fn answer(world: &mut World, request: &Request, fault: Option<Fault>) -> Option<Response> {
    let error = || Response::json(500, &serde_json::json!({"detail": "Internal Server Error"}));
    match fault {
        None | Some(Fault::Truncated) => Some(routes::respond(world, request)),
        Some(Fault::ErrorBefore) => Some(error()),
        Some(Fault::ErrorAfter) => {
            routes::respond(world, request);
            Some(error())
        }
        Some(Fault::ResetBefore | Fault::HangBefore) => None,
        Some(Fault::ResetAfter | Fault::HangAfter) => {
            routes::respond(world, request);
            None
        }
        Some(Fault::TooMany(seconds)) => {
            let mut response = Response::text(429, "text/plain", "slow down");
            response.headers.push(("Retry-After", seconds.to_string()));
            Some(response)
        }
        Some(Fault::TokensExpire) => {
            world.tokens.clear();
            Some(routes::respond(world, request))
        }
        Some(Fault::Forbidden) => Some(Response::json(403, &serde_json::json!({"detail": "Forbidden"}))),
        Some(Fault::Echo(status)) => Some(routes::echo(request, status)),
        Some(Fault::Html) => Some(Response::text(200, "text/html", "<!DOCTYPE html><title>Sign in</title>")),
    }
}

fn render(world: &World, response: &Response) -> Vec<u8> {
    let date = jiff::fmt::rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&world.clock.now());
    let mut head = String::with_capacity(256);
    let _ = write!(
        head,
        "HTTP/1.1 {} Status\r\nContent-Type: {}\r\nContent-Length: {}\r\n",
        response.status,
        response.content_type,
        response.body.len()
    );
    if let Ok(date) = date {
        let _ = write!(head, "Date: {date}\r\n");
    }
    for (name, value) in &response.headers {
        let _ = write!(head, "{name}: {value}\r\n");
    }
    head.push_str("\r\n");
    let mut bytes = head.into_bytes();
    bytes.extend_from_slice(&response.body);
    bytes
}

/// Reads one request; `None` when the connection has ended. Also how many bytes of `buffer` it was.
async fn read_request(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<(Request, usize)> {
    let head_end = loop {
        if let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            break end + 4;
        }
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8_lossy(&buffer[..head_end]).into_owned();
    let mut lines = head.split("\r\n");
    let mut first = lines.next()?.split(' ');
    let (method, target) = (first.next()?.to_owned(), first.next()?.to_owned());
    let (mut length, mut authorization) = (0, None);
    for line in lines {
        let Some((name, value)) = line.split_once(':') else { continue };
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().ok()?;
        } else if name.eq_ignore_ascii_case("authorization") {
            authorization = Some(value.trim().to_owned());
        }
    }
    while buffer.len() < head_end + length {
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    }
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let request = Request {
        method,
        path: path.split('/').filter(|part| !part.is_empty()).map(|part| decode(part, false)).collect(),
        query: form(query),
        authorization,
        head: head.clone(),
        body: buffer[head_end..head_end + length].to_vec(),
        arrived: Instant::now(),
    };
    Some((request, head_end + length))
}

/// `a=1&b=2`, decoded.
pub fn form(text: &str) -> Vec<(String, String)> {
    let pairs = text.split('&').filter_map(|pair| pair.split_once('='));
    pairs.map(|(name, value)| (decode(name, true), decode(value, true))).collect()
}

fn decode(text: &str, plus_is_space: bool) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut index = 0;
    while index < bytes.len() {
        let escaped = text.get(index + 1..index + 3).and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match (bytes[index], escaped) {
            (b'%', Some(byte)) => {
                decoded.push(byte);
                index += 2;
            }
            (b'+', _) if plus_is_space => decoded.push(b' '),
            (byte, _) => decoded.push(byte),
        }
        index += 1;
    }
    String::from_utf8_lossy(&decoded).into_owned()
}
