//! Content from and to an HTTP/2 stream, as fast as the slower side takes it.

use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, header};
use http_body::{Body as _, Frame, SizeHint};

use super::message;
use crate::deadline::Deadline;
use crate::message::{Body, BodyError};

/// Data up to this size is a crumb: each frame costs its receiver more than that.
const CRUMB: usize = 1024;
/// Crumbs gathered in one frame: as many as any receiver takes.
const GATHERED: usize = 16 << 10;

/// What a stream receives. The sender's window reopens as data is taken.
pub(crate) struct Received {
    stream: RecvStream,
    left: Option<u64>,
    /// What came with the head.
    first: Option<Bytes>,
    data_ended: bool,
}

/// A body on its way into a stream.
pub(crate) struct Sending {
    pub(crate) stream: SendStream<Bytes>,
    body: Body,
    /// Taken from the body and not yet admitted by the window.
    data: Bytes,
    /// What followed of the body when crumbs were gathered.
    ahead: Option<Option<Result<Frame<Bytes>, BodyError>>>,
    /// How long data may wait for the window.
    idle_timeout: Duration,
    deadline: Deadline,
}

/// Why a body did not go out whole.
#[derive(Debug)]
pub(crate) enum SendError {
    /// The body broke off.
    Body(BodyError),
    /// The receiver reset the stream, or is gone.
    Stream(h2::Error),
}

// === impl Received ===

impl Received {
    /// Small bodies come with their heads and are whole at once.
    pub(crate) fn body(mut stream: RecvStream, headers: &HeaderMap) -> Body {
        if stream.is_end_stream() {
            return Body::Empty;
        }
        let mut first = None;
        let cx = &mut Context::from_waker(Waker::noop());
        if let Poll::Ready(Some(Ok(data))) = stream.poll_data(cx) {
            // It fails only for more than was received.
            let _ = stream.flow_control().release_capacity(data.len());
            if stream.is_end_stream() {
                return Body::Full(data);
            }
            first = Some(data);
        }
        let stated = headers.get(header::CONTENT_LENGTH);
        let left = stated.and_then(|value| value.to_str().ok()?.parse().ok());
        Body::stream(Self {
            stream,
            left,
            first,
            data_ended: false,
        })
    }
}

impl http_body::Body for Received {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let reset = |error: h2::Error| BodyError::Reset(error.to_string());
        if let Some(data) = self.first.take().filter(|data| !data.is_empty()) {
            self.left = self.left.map(|left| left.saturating_sub(data.len() as u64));
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        while !self.data_ended {
            match ready!(self.stream.poll_data(cx)) {
                Some(Ok(data)) if data.is_empty() => {}
                Some(Ok(data)) => {
                    // It fails only for more than was received.
                    let _ = self.stream.flow_control().release_capacity(data.len());
                    self.left = self.left.map(|left| left.saturating_sub(data.len() as u64));
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(reset(error)))),
                None => self.data_ended = true,
            }
        }
        match ready!(self.stream.poll_trailers(cx)) {
            Ok(Some(trailers)) => {
                Poll::Ready(Some(Ok(Frame::trailers(message::trailers(trailers)))))
            }
            Ok(None) => Poll::Ready(None),
            Err(error) => Poll::Ready(Some(Err(reset(error)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none() && self.stream.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        match self.left {
            Some(left) => SizeHint::with_exact(left),
            None => SizeHint::new(),
        }
    }
}

// === impl Sending ===

impl Sending {
    pub(crate) fn new(stream: SendStream<Bytes>, body: Body, idle_timeout: Duration) -> Self {
        Self {
            stream,
            body,
            data: Bytes::new(),
            ahead: None,
            idle_timeout,
            deadline: Deadline::default(),
        }
    }

    /// Ready once the stream has ended. A body that broke off resets it.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        loop {
            ready!(self.poll_data(cx)).map_err(SendError::Stream)?;
            let next = match self.ahead.take() {
                Some(frame) => Poll::Ready(frame),
                None => Pin::new(&mut self.body).poll_frame(cx),
            };
            let frame = match next {
                Poll::Ready(frame) => frame,
                Poll::Pending => {
                    // A receiver that gave up is noticed without anything to send.
                    let reset = ready!(self.stream.poll_reset(cx));
                    let error = reset.map_or_else(|error| error, h2::Error::from);
                    return Poll::Ready(Err(SendError::Stream(error)));
                }
            };
            let ended = match frame {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => {
                        let data = self.gather(data, cx);
                        let is_last = match &self.ahead {
                            Some(next) => next.is_none(),
                            None => self.body.is_end_stream(),
                        };
                        if !is_last {
                            self.data = data;
                            continue;
                        }
                        self.send_last(data)
                    }
                    Err(frame) => match frame.into_trailers() {
                        Ok(fields) => self.stream.send_trailers(message::trailers(fields)),
                        Err(_) => continue,
                    },
                },
                None => self.stream.send_data(Bytes::new(), true),
                Some(Err(error)) => {
                    self.stream.send_reset(Reason::INTERNAL_ERROR);
                    return Poll::Ready(Err(SendError::Body(error)));
                }
            };
            match ended {
                Ok(()) if self.data.is_empty() => return Poll::Ready(Ok(())),
                Ok(()) => {}
                Err(error) => return Poll::Ready(Err(SendError::Stream(error))),
            }
        }
    }

    /// Crumbs that are here already go on in one piece. An endpoint that counts frames would end
    /// the connection for one client's, and everybody's requests with it.
    fn gather(&mut self, first: Bytes, cx: &mut Context<'_>) -> Bytes {
        if first.len() >= CRUMB {
            return first;
        }
        let mut gathered = BytesMut::new();
        while gathered.len() < GATHERED && !self.body.is_end_stream() {
            match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Pending => break,
                Poll::Ready(Some(Ok(frame))) if is_crumb(&frame) => {
                    if gathered.is_empty() {
                        gathered.extend_from_slice(&first);
                    }
                    gathered.extend(frame.into_data());
                }
                Poll::Ready(next) => {
                    self.ahead = Some(next);
                    break;
                }
            }
        }
        match gathered.is_empty() {
            true => first,
            false => gathered.freeze(),
        }
    }

    /// The last data ends the stream with it, where the window admits all of it at once.
    fn send_last(&mut self, data: Bytes) -> Result<(), h2::Error> {
        self.stream.reserve_capacity(data.len());
        if self.stream.capacity() >= data.len() {
            return self.stream.send_data(data, true);
        }
        self.data = data;
        Ok(())
    }

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), h2::Error>> {
        while !self.data.is_empty() {
            self.stream.reserve_capacity(self.data.len());
            let mut capacity = self.stream.capacity();
            if capacity == 0 {
                capacity = match self.stream.poll_capacity(cx) {
                    Poll::Ready(Some(capacity)) => capacity?,
                    Poll::Ready(None) => return Poll::Ready(Err(Reason::STREAM_CLOSED.into())),
                    Poll::Pending => {
                        // A window that never opens would hold the stream, and what is behind it.
                        if !self.deadline.is_set() {
                            self.deadline.set(self.idle_timeout);
                        }
                        ready!(self.deadline.poll_elapsed(cx));
                        self.stream.send_reset(Reason::CANCEL);
                        return Poll::Ready(Err(Reason::CANCEL.into()));
                    }
                };
                self.deadline.clear();
            }
            let amount = capacity.min(self.data.len());
            let data = self.data.split_to(amount);
            self.stream.send_data(data, false)?;
        }
        Poll::Ready(Ok(()))
    }
}

fn is_crumb(frame: &Frame<Bytes>) -> bool {
    frame.data_ref().is_some_and(|data| data.len() < CRUMB)
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use h2::client;
    use http::{Request, Response};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_window_that_does_not_open_ends_the_stream() {
        let (near, far) = tokio::io::duplex(64 << 10);
        let mut builder = client::Builder::new();
        builder.initial_window_size(10);
        let (client, server) = tokio::join!(
            builder.handshake::<_, Bytes>(near),
            h2::server::handshake(far)
        );
        let (mut requests, connection) = client.unwrap();
        let client = tokio::spawn(connection);
        let mut server = server.unwrap();
        let request = Request::get("http://web/").body(()).unwrap();
        let (response, _) = requests.send_request(request, true).unwrap();
        let (_, mut respond) = server.accept().await.unwrap().unwrap();
        let stream = respond.send_response(Response::new(()), false).unwrap();
        let server = tokio::spawn(async move { while server.accept().await.is_some() {} });
        let body = Body::Full(Bytes::from_static(&[0; 100]));
        let timeout = Duration::from_secs(300);
        let mut sending = Sending::new(stream, body, timeout);
        let began = tokio::time::Instant::now();
        let ended = poll_fn(|cx| sending.poll(cx)).await;
        assert!(matches!(ended, Err(SendError::Stream(_))), "{ended:?}");
        assert_eq!(began.elapsed().as_secs(), timeout.as_secs());
        let mut body = response.await.unwrap().into_body();
        while let Some(Ok(_)) = body.data().await {}
        assert!(body.is_end_stream() || body.trailers().await.is_err());
        client.abort();
        server.abort();
    }

    /// Crumbs with a large piece and trailers among them, and a pause.
    struct Pieces(Vec<Option<Frame<Bytes>>>);

    impl http_body::Body for Pieces {
        type Data = Bytes;
        type Error = BodyError;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
            if self.0.is_empty() {
                return Poll::Ready(None);
            }
            match self.0.remove(0) {
                Some(frame) => Poll::Ready(Some(Ok(frame))),
                None => {
                    cx.waker().wake_by_ref();
                    Poll::Pending
                }
            }
        }

        fn is_end_stream(&self) -> bool {
            self.0.is_empty()
        }
    }

    /// What an endpoint gets of a body, frame by frame, and its trailers.
    async fn sent(pieces: Vec<Option<Frame<Bytes>>>) -> (Vec<usize>, Option<HeaderMap>) {
        let (near, far) = tokio::io::duplex(64 << 10);
        let (client, server) = tokio::join!(client::handshake(near), h2::server::handshake(far));
        let (mut requests, connection) = client.unwrap();
        let client = tokio::spawn(connection);
        let mut server = server.unwrap();
        let request = Request::post("http://web/").body(()).unwrap();
        let (_response, stream) = requests.send_request(request, false).unwrap();
        let (request, _respond) = server.accept().await.unwrap().unwrap();
        let server = tokio::spawn(async move { while server.accept().await.is_some() {} });
        let body = Body::stream(Pieces(pieces));
        let mut sending = Sending::new(stream, body, Duration::from_secs(1));
        let receiving = async {
            let mut body = request.into_body();
            let mut sizes = Vec::new();
            while let Some(data) = body.data().await {
                let data = data.unwrap();
                body.flow_control().release_capacity(data.len()).unwrap();
                sizes.push(data.len());
            }
            (sizes, body.trailers().await.unwrap())
        };
        let (ended, received) = tokio::join!(poll_fn(|cx| sending.poll(cx)), receiving);
        ended.unwrap();
        client.abort();
        server.abort();
        received
    }

    #[tokio::test]
    async fn crumbs_that_are_here_already_go_on_in_one_frame() {
        let data = |length: usize| Some(Frame::data(Bytes::from(vec![b'x'; length])));
        let crumbs = |count: usize| (0..count).map(|_| data(1)).collect::<Vec<_>>();
        assert_eq!(sent(crumbs(500)).await, (vec![500], None));
        assert_eq!(sent(vec![data(2000), data(3)]).await.0, [2000, 3]);
        assert_eq!(sent(vec![data(3), data(2000)]).await.0, [3, 2000]);
        // What comes later is not waited for.
        let paused = crumbs(3).into_iter().chain([None]).chain(crumbs(4));
        assert_eq!(sent(paused.collect()).await.0, [3, 4]);
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", header::HeaderValue::from_static("0"));
        let mut told = crumbs(5);
        told.push(Some(Frame::trailers(trailers.clone())));
        assert_eq!(sent(told).await, (vec![5], Some(trailers)));
        // No frame grows without a bound.
        let (sizes, _) = sent((0..64).map(|_| data(1000)).collect()).await;
        assert_eq!(sizes.iter().sum::<usize>(), 64_000);
        assert!(
            sizes.iter().all(|size| *size < GATHERED + CRUMB),
            "{sizes:?}"
        );
    }
}
