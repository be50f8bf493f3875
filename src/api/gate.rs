//! A layer around the HTTP client that holds requests to `clientConnection.qps` and measures them.

use super::connection::{Call, Observer};
use futures::FutureExt;
use futures::future::BoxFuture;
use http::{Request, Response};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::time::Sleep;
use tower::{Layer, Service};

/// A token bucket shared by all clients of a connection.
#[derive(Clone)]
pub struct Limiter {
    bucket: Option<Arc<Mutex<Bucket>>>,
}

struct Bucket {
    /// Tokens a second.
    rate: f64,
    capacity: f64,
    tokens: f64,
    filled: Instant,
}

impl Limiter {
    /// `qps` 0 means 5 and `burst` 0 means 10, as in client-go; a negative `qps` means no limit.
    pub fn new(qps: f32, burst: u32) -> Limiter {
        if qps < 0.0 {
            return Limiter { bucket: None };
        }
        let rate = if qps == 0.0 { 5.0 } else { f64::from(qps) };
        let capacity = if burst == 0 { 10.0 } else { f64::from(burst) };
        let bucket = Bucket { rate, capacity, tokens: capacity, filled: Instant::now() };
        Limiter { bucket: Some(Arc::new(Mutex::new(bucket))) }
    }

    /// Takes a token, or says how long to wait before asking again.
    fn take(&self, now: Instant) -> Result<(), Duration> {
        let Some(bucket) = &self.bucket else { return Ok(()) };
        let mut bucket = bucket.lock().expect("no holder panics");
        let elapsed = now.saturating_duration_since(bucket.filled).as_secs_f64();
        bucket.tokens = (bucket.tokens + elapsed * bucket.rate).min(bucket.capacity);
        bucket.filled = now;
        if bucket.tokens >= 1.0 {
            bucket.tokens -= 1.0;
            return Ok(());
        }
        Err(Duration::from_secs_f64((1.0 - bucket.tokens) / bucket.rate))
    }
}

/// Puts a [`Gate`] around a service.
#[derive(Clone)]
pub struct GateLayer {
    limiter: Limiter,
    observer: Observer,
    host: Arc<str>,
}

impl GateLayer {
    pub fn new(limiter: Limiter, observer: Observer, host: Arc<str>) -> Self {
        GateLayer { limiter, observer, host }
    }
}

impl<S> Layer<S> for GateLayer {
    type Service = Gate<S>;

    fn layer(&self, inner: S) -> Gate<S> {
        Gate { inner, layer: self.clone(), state: State::Idle }
    }
}

/// Whether the next request may go.
enum State {
    Idle,
    Waiting { since: Instant, sleep: Pin<Box<Sleep>> },
    Open { throttled: Duration },
}

/// The service; see the module.
pub struct Gate<S> {
    inner: S,
    layer: GateLayer,
    state: State,
}

impl<S, B, R> Service<Request<B>> for Gate<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<S::Response, S::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        loop {
            let since = match &mut self.state {
                State::Open { .. } => return self.inner.poll_ready(cx),
                State::Idle => None,
                State::Waiting { since, sleep } => {
                    if sleep.as_mut().poll(cx).is_pending() {
                        return Poll::Pending;
                    }
                    Some(*since)
                }
            };
            let now = Instant::now();
            self.state = match self.layer.limiter.take(now) {
                Ok(()) => State::Open {
                    throttled: since.map_or(Duration::ZERO, |since| now.duration_since(since)),
                },
                Err(wait) => State::Waiting {
                    since: since.unwrap_or(now),
                    sleep: Box::pin(tokio::time::sleep(wait)),
                },
            };
        }
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let throttled = match std::mem::replace(&mut self.state, State::Idle) {
            State::Open { throttled } => throttled,
            State::Idle | State::Waiting { .. } => Duration::ZERO,
        };
        let GateLayer { observer, host, .. } = self.layer.clone();
        let method = request.method().clone();
        let start = Instant::now();
        let response = self.inner.call(request);
        async move {
            let response = response.await;
            observer(&Call {
                method: method.as_str(),
                host: &host,
                code: response.as_ref().ok().map(|response| response.status().as_u16()),
                latency: start.elapsed(),
                throttled,
            });
            response
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;
    use tower::ServiceExt;

    #[test]
    fn the_bucket_holds_the_burst_and_refills() {
        let limiter = Limiter::new(10.0, 2);
        let start = Instant::now();
        assert_eq!(limiter.take(start), Ok(()));
        assert_eq!(limiter.take(start), Ok(()));
        let wait = limiter.take(start).expect_err("the burst is used up");
        assert!(wait > Duration::from_millis(90) && wait <= Duration::from_millis(101), "{wait:?}");
        assert_eq!(limiter.take(start + wait * 2), Ok(()));
        assert_eq!(Limiter::new(-1.0, 0).take(start), Ok(()));
    }

    #[tokio::test]
    async fn requests_are_observed() {
        let seen: Arc<Mutex<Vec<String>>> = Arc::default();
        let observer: Observer = {
            let seen = seen.clone();
            Arc::new(move |call: &Call<'_>| {
                let line = format!("{} {} {:?}", call.method, call.host, call.code);
                seen.lock().expect("no holder panics").push(line);
            })
        };
        let layer = GateLayer::new(Limiter::new(1000.0, 1), observer, "h:1".into());
        let mut service = layer.layer(tower::service_fn(|_: Request<()>| async {
            Ok::<_, Infallible>(Response::new(()))
        }));
        for _ in 0..3 {
            let ready = service.ready().await.expect("ready");
            ready.call(Request::new(())).await.expect("a response");
        }
        assert_eq!(*seen.lock().expect("no holder panics"), ["GET h:1 Some(200)"; 3]);
    }
}
