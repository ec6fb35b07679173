// Work on all cores, cut up by its size alone: the results do not depend on the number of threads.
#pragma once

#include <sched.h>
#ifdef __SSE2__
#include <immintrin.h>
#endif

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace tf_finetune {

// Takes numbers too small to be normal for 0, as TensorFlow does in its own threads, on every thread alike.
class FlushDenormals {
#ifdef __SSE2__
 public:
  FlushDenormals() : before_(_mm_getcsr()) { _mm_setcsr(before_ | 0x8040); }
  ~FlushDenormals() { _mm_setcsr(before_); }

 private:
  const unsigned int before_;
#endif
};

class Workers {
 public:
  explicit Workers(int threads) {
    for (int i = 0; i < threads; ++i) std::thread([this] { serve(); }).detach();
  }

  // Calls piece(0) to piece(count - 1), on this thread and on those that are free; returns when all are done.
  void run(int count, const std::function<void(int)>& piece) {
    auto job = std::make_shared<Job>(piece, count);
    if (count > 1) {
      std::lock_guard<std::mutex> lock(mutex_);
      jobs_.push_back(job);
      waiting_.notify_all();
    }
    work(*job);
    while (job->done.load(std::memory_order_acquire) < count) std::this_thread::yield();
  }

 private:
  struct Job {
    Job(const std::function<void(int)>& piece, int count) : piece(piece), count(count) {}
    const std::function<void(int)>& piece;  // outlives the job's last piece, as run() waits for it
    const int count;
    std::atomic<int> next{0}, done{0};
  };

  static void work(Job& job) {
    const FlushDenormals flushed;
    for (int i; (i = job.next.fetch_add(1)) < job.count;) {
      job.piece(i);
      job.done.fetch_add(1, std::memory_order_release);
    }
  }

  void serve() {
    for (;;) {
      std::shared_ptr<Job> job;
      {
        std::unique_lock<std::mutex> lock(mutex_);
        waiting_.wait(lock, [this] { return !jobs_.empty(); });
        job = jobs_.front();
        if (job->next.load() >= job->count) {
          jobs_.pop_front();
          continue;
        }
      }
      work(*job);
    }
  }

  std::mutex mutex_;
  std::condition_variable waiting_;
  std::deque<std::shared_ptr<Job>> jobs_;
};

Workers& workers() {
  static Workers* pool = [] {
    cpu_set_t cores;
    const bool known = sched_getaffinity(0, sizeof(cores), &cores) == 0;
    return new Workers((known ? CPU_COUNT(&cores) : 1) - 1);  // never deleted: its threads end with the process
  }();
  return *pool;
}

struct Rows {
  int64_t begin, end;
};

// How many pieces `rows` of `width` values are cut into, and which rows the i-th has.
int pieces_of(int64_t rows, int64_t width) {
  return static_cast<int>(std::max<int64_t>(1, std::min({rows * width / 16384, rows, int64_t{64}})));
}

Rows piece_of(int64_t rows, int pieces, int i) { return {rows * i / pieces, rows * (i + 1) / pieces}; }

void for_rows(int64_t rows, int64_t width, const std::function<void(Rows)>& body) {
  const int pieces = pieces_of(rows, width);
  workers().run(pieces, [&](int i) { body(piece_of(rows, pieces, i)); });
}

// Sums of `columns` values over all rows: body adds those of its rows to the zeros it is given.
void sum_rows(int64_t rows, int64_t width, int64_t columns, float* sums,
              const std::function<void(Rows, float*)>& body) {
  const int pieces = pieces_of(rows, width);
  std::vector<float> partial(pieces * columns);
  workers().run(pieces, [&](int i) { body(piece_of(rows, pieces, i), &partial[i * columns]); });
  std::copy_n(partial.begin(), columns, sums);
  for (int i = 1; i < pieces; ++i)
    for (int64_t j = 0; j < columns; ++j) sums[j] += partial[i * columns + j];
}

}  // namespace tf_finetune
