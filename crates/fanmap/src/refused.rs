//! What the compiler must refuse, since it would be unsound or hang: doc tests alone. Beside each stands what differs from it
//! by nothing but the reason, and compiles, so that none is refused for another reason.
//!
//! # A function must be `'static` outside a scope
//! ```
//! let numbers = vec![1, 2, 3];
//! let pool = fanmap::ThreadPool::new(1).unwrap();
//! let _ = pool.submit(move || numbers.len());
//! ```
//! ```compile_fail,E0373
//! let numbers = vec![1, 2, 3];
//! let pool = fanmap::ThreadPool::new(1).unwrap();
//! let _ = pool.submit(|| numbers.len());
//! ```
//! ```compile_fail,E0373
//! use fanmap::FanMap;
//! let numbers = vec![1, 2, 3];
//! let _ = (0..3).fan_map(|n| numbers[n]);
//! ```
//!
//! # What goes to another thread must be `Send`
//! ```
//! let shared = std::sync::Arc::new(1);
//! let _ = fanmap::map(0..3, move |n| n + *shared);
//! ```
//! ```compile_fail,E0277
//! let shared = std::rc::Rc::new(1);
//! let _ = fanmap::map(0..3, move |n| n + *shared);
//! ```
//! ```compile_fail,E0277
//! let _ = fanmap::map([std::rc::Rc::new(1)], |n| *n);
//! ```
//! ```compile_fail,E0277
//! let _ = fanmap::map_vec(0..3, std::rc::Rc::new);
//! ```
//! ```compile_fail,E0277
//! fanmap::scope(|s| drop(s.submit(|| std::rc::Rc::new(1))));
//! ```
//!
//! # What a map's function captures must be `Sync`
//! ```
//! let count = std::sync::atomic::AtomicU32::new(0);
//! let _ = fanmap::map_vec(0..3u32, |n| count.store(n, std::sync::atomic::Ordering::Relaxed));
//! ```
//! ```compile_fail,E0277
//! let count = std::cell::Cell::new(0);
//! let _ = fanmap::map_vec(0..3u32, |n| count.set(n));
//! ```
//!
//! # What is lent to a scope must outlive it
//! ```
//! let numbers = vec![1, 2, 3];
//! fanmap::scope(|s| drop(s.submit(|| numbers.len())));
//! drop(numbers);
//! ```
//! ```compile_fail,E0373
//! fanmap::scope(|s| {
//!     let numbers = vec![1, 2, 3];
//!     drop(s.submit(|| numbers.len()));
//! });
//! ```
//! ```compile_fail,E0505
//! let numbers = vec![1, 2, 3];
//! fanmap::scope(|s| {
//!     let _future = s.submit(|| numbers.len());
//!     drop(numbers);
//! });
//! ```
//!
//! # Nothing that may borrow leaves its scope
//! ```
//! let count = fanmap::scope(|s| s.map(0..3, |n| n + 1).count());
//! assert_eq!(count, 3);
//! ```
//! ```compile_fail
//! let map = fanmap::scope(|s| s.map(0..3, |n| n + 1));
//! assert_eq!(map.count(), 3);
//! ```
//! ```compile_fail
//! let mut left = None;
//! fanmap::scope(|s| left = Some(s));
//! ```
