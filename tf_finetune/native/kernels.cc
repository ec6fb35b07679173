// The passes of a training step that TensorFlow makes one small operation at a time, each in one pass over memory.
//
// On TensorFlow's C API, which stays the same from version to version; built and called by compiled.py, with the formulas
// in bert/kernels.py. Activations (T) are bfloat16 or float32, all arithmetic is float32. The results do not depend on the
// number of threads: rows are cut into pieces by their number alone, and sums over rows add the pieces in order.

#include <sched.h>
#ifdef __SSE2__
#include <xmmintrin.h>
#endif

#include <algorithm>
#include <atomic>
#include <cmath>
#include <condition_variable>
#include <cstdint>
#include <cstring>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "tensorflow/c/kernels.h"
#include "tensorflow/c/ops.h"

namespace {

// ---- Threads -------------------------------------------------------------------------------------------------------

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
void sum_rows(int64_t rows, int64_t width, int64_t columns, float* sums, const std::function<void(Rows, float*)>& body) {
  const int pieces = pieces_of(rows, width);
  std::vector<float> partial(pieces * columns);
  workers().run(pieces, [&](int i) { body(piece_of(rows, pieces, i), &partial[i * columns]); });
  std::copy_n(partial.begin(), columns, sums);
  for (int i = 1; i < pieces; ++i)
    for (int64_t j = 0; j < columns; ++j) sums[j] += partial[i * columns + j];
}

// ---- Numbers -------------------------------------------------------------------------------------------------------

struct BFloat16 {
  uint16_t bits;
};

inline uint32_t bits_of(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  return bits;
}

inline float of_bits(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}

inline float wide(float value) { return value; }
inline float wide(BFloat16 value) { return of_bits(uint32_t{value.bits} << 16); }

inline void narrow(float value, float* to) { *to = value; }
inline void narrow(float value, BFloat16* to) {  // to the nearest, ties to even
  const uint32_t bits = bits_of(value);
  const uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  to->bits = static_cast<uint16_t>(value == value ? rounded : 0x7fc0);
}

template <class T>
inline float rounded(float value) {
  T result;
  narrow(value, &result);
  return wide(result);
}

// e**x to 2e-7 of itself, 0 below -87; the polynomial is a minimax fit on [-ln(2)/2, ln(2)/2].
inline float exponential(float x) {
  const float bounded = x < -87.0f ? -87.0f : x;
  const float turns = std::floor(bounded * 1.44269504f + 0.5f);
  const float r = (bounded - turns * 0.693359375f) + turns * 2.12194440e-4f;
  float p = 0.0013836838f;
  p = p * r + 0.0083748223f;
  p = p * r + 0.0416682251f;
  p = p * r + 0.1666641980f;
  p = p * r + 0.4999999106f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  const float power = of_bits(static_cast<uint32_t>(static_cast<int32_t>(turns) + 127) << 23);
  return x < -87.0f ? 0.0f : p * power;
}

// The normal distribution at x: its function to 4e-7 of itself in both tails, and its density.
struct Normal {
  explicit Normal(float x) {
    const float a = std::fabs(x), e = exponential(-0.5f * x * x);
    const float t = 1.0f / (1.0f + 0.35f * a);  // a minimax fit in t of Mills' ratio
    float p = -0.0291459393f;
    p = p * t + 0.1439717412f;
    p = p * t - 0.2557143569f;
    p = p * t + 0.1591742635f;
    p = p * t - 0.0231099036f;
    p = p * t + 0.1055080295f;
    p = p * t + 0.1198328585f;
    p = p * t + 0.1398618668f;
    p = p * t + 0.1396214068f;
    const float tail = e * t * p;
    below = x > 0.0f ? 1.0f - tail : tail;
    density = 0.398942280f * e;
  }
  float below, density;
};

// ---- Dropout -------------------------------------------------------------------------------------------------------

// Which values of a tensor are kept: 16 bits of Threefry 4x32-12 (Salmon et al. 2011) a value, by its place in the tensor.
class Mask {
 public:
  static constexpr int kCounters = 64;               // of the generator, side by side
  static constexpr int64_t kBlock = 8 * kCounters;   // values that these are enough for
  static constexpr int64_t kBuffer = 16 * kBlock;    // values kept at hand

  Mask(const int64_t* seed, float rate)
      : key_{static_cast<uint32_t>(seed[0]), static_cast<uint32_t>(seed[1])},
        dropped_(static_cast<int32_t>(std::lround(rate * 65536.0f))),
        scale(65536.0f / (65536.0f - dropped_)) {}

  // The lanes of `count` values from `first` on; valid until the next call. At most kBuffer - kBlock of them.
  const uint16_t* lanes(int64_t first, int64_t count) {
    const int64_t block = first / kBlock;
    if (first < have_.begin || first + count > have_.end) {
      const int64_t blocks = kBuffer / kBlock;
      for (int64_t i = 0; i < blocks; ++i) fill(block + i, reinterpret_cast<uint32_t*>(lanes_ + i * kBlock));
      have_ = {block * kBlock, (block + blocks) * kBlock};
    }
    return lanes_ + (first - have_.begin);
  }

  inline float factor(uint16_t lane) const { return lane >= dropped_ ? scale : 0.0f; }

 private:
  void fill(int64_t block, uint32_t* out) const {
    constexpr int kTurns[8][2] = {{10, 26}, {11, 21}, {13, 27}, {23, 5}, {6, 20}, {17, 11}, {25, 10}, {18, 20}};
    const uint32_t key[5] = {key_[0], key_[1], 0, 0, 0x1BD11BDAu ^ key_[0] ^ key_[1]};
    const auto turned = [](uint32_t value, int turns) { return (value << turns) | (value >> (32 - turns)); };
#pragma omp simd
    for (int i = 0; i < kCounters; ++i) {
      const uint64_t counter = static_cast<uint64_t>(block) * kCounters + i;
      uint32_t a = static_cast<uint32_t>(counter) + key[0], b = static_cast<uint32_t>(counter >> 32) + key[1];
      uint32_t c = 0, d = 0;
#pragma GCC unroll 12
      for (int round = 0; round < 12; ++round) {
        uint32_t& with_a = round % 2 == 0 ? b : d;
        uint32_t& with_c = round % 2 == 0 ? d : b;
        a += with_a;
        with_a = turned(with_a, kTurns[round % 8][0]) ^ a;
        c += with_c;
        with_c = turned(with_c, kTurns[round % 8][1]) ^ c;
        if (round % 4 == 3) {
          const int next = round / 4 + 1;
          a += key[next % 5];
          b += key[(next + 1) % 5];
          c += key[(next + 2) % 5];
          d += key[(next + 3) % 5] + next;
        }
      }
      out[i] = a;
      out[kCounters + i] = b;
      out[2 * kCounters + i] = c;
      out[3 * kCounters + i] = d;
    }
  }

  uint32_t key_[2];
  int32_t dropped_;  // of 65536

 public:
  float scale;

 private:
  Rows have_{0, 0};
  alignas(64) uint16_t lanes_[kBuffer];
};

// ---- What is computed ----------------------------------------------------------------------------------------------

template <class T>
void bias_gelu(const T* x, const float* bias, T* y, int64_t rows, int64_t width) {
  for_rows(rows, width, [=](Rows mine) {
    for (int64_t r = mine.begin; r < mine.end; ++r) {
#pragma omp simd
      for (int64_t j = 0; j < width; ++j) {
        const float value = wide(x[r * width + j]) + bias[j];
        narrow(value * Normal(value).below, &y[r * width + j]);
      }
    }
  });
}

template <class T>
void bias_gelu_grad(const T* x, const float* bias, const T* dy, T* dx, float* dbias, int64_t rows, int64_t width) {
  sum_rows(rows, width, width, dbias, [=](Rows mine, float* sums) {
    for (int64_t r = mine.begin; r < mine.end; ++r) {
#pragma omp simd
      for (int64_t j = 0; j < width; ++j) {
        const float value = wide(x[r * width + j]) + bias[j];
        const Normal normal(value);
        const float slope = (normal.below + value * normal.density) * wide(dy[r * width + j]);
        narrow(slope, &dx[r * width + j]);
        sums[j] += slope;
      }
    }
  });
}

// y = LayerNorm(residual + dropout(x + bias)); `added` is what is normalised, `stats` its mean and 1 / deviation a row.
template <class T>
void dropout_add_norm(const T* x, const float* bias, const T* residual, const float* gamma, const float* beta,
                      const int64_t* seed, float rate, float epsilon, T* y, T* added, float* stats, int64_t rows,
                      int64_t width) {
  for_rows(rows, width, [=](Rows mine) {
    Mask mask(seed, rate);
    std::vector<float> row(width);
    for (int64_t r = mine.begin; r < mine.end; ++r) {
      float* values = row.data();
      for (int64_t from = 0; from < width; from += Mask::kBlock) {
        const int64_t at = r * width + from, count = std::min(Mask::kBlock, width - from);
        const uint16_t* lanes = mask.lanes(at, count);
#pragma omp simd
        for (int64_t j = 0; j < count; ++j)
          values[from + j] =
              rounded<T>(wide(residual[at + j]) + (wide(x[at + j]) + bias[from + j]) * mask.factor(lanes[j]));
      }
      float sum = 0.0f, squares = 0.0f;
#pragma omp simd reduction(+ : sum)
      for (int64_t j = 0; j < width; ++j) sum += values[j];
      const float mean = sum / width;
#pragma omp simd reduction(+ : squares)
      for (int64_t j = 0; j < width; ++j) squares += (values[j] - mean) * (values[j] - mean);
      const float scale = 1.0f / std::sqrt(squares / width + epsilon);
#pragma omp simd
      for (int64_t j = 0; j < width; ++j) {
        narrow(values[j], &added[r * width + j]);
        narrow((values[j] - mean) * scale * gamma[j] + beta[j], &y[r * width + j]);
      }
      stats[2 * r] = mean;
      stats[2 * r + 1] = scale;
    }
  });
}

// `sums` are the gradients of gamma, beta and bias, one after the other.
template <class T>
void dropout_add_norm_grad(const T* added, const float* stats, const float* gamma, const T* dy, const int64_t* seed,
                           float rate, T* dx, T* dresidual, float* sums, int64_t rows, int64_t width) {
  sum_rows(rows, width, 3 * width, sums, [=](Rows mine, float* mine_sums) {
    float *dgamma = mine_sums, *dbeta = mine_sums + width, *dbias = mine_sums + 2 * width;
    Mask mask(seed, rate);
    std::vector<float> row(2 * width);
    for (int64_t r = mine.begin; r < mine.end; ++r) {
      float *normal = row.data(), *slope = row.data() + width;
      const float mean = stats[2 * r], scale = stats[2 * r + 1];
      float sum = 0.0f, product = 0.0f;
#pragma omp simd reduction(+ : sum, product)
      for (int64_t j = 0; j < width; ++j) {
        const float upstream = wide(dy[r * width + j]);
        normal[j] = (wide(added[r * width + j]) - mean) * scale;
        slope[j] = upstream * gamma[j];
        dgamma[j] += upstream * normal[j];
        dbeta[j] += upstream;
        sum += slope[j];
        product += slope[j] * normal[j];
      }
      sum /= width;
      product /= width;
      for (int64_t from = 0; from < width; from += Mask::kBlock) {
        const int64_t at = r * width + from, count = std::min(Mask::kBlock, width - from);
        const uint16_t* lanes = mask.lanes(at, count);
#pragma omp simd
        for (int64_t j = 0; j < count; ++j) {
          const float inner = scale * (slope[from + j] - sum - normal[from + j] * product);
          const float kept = inner * mask.factor(lanes[j]);
          narrow(inner, &dresidual[at + j]);
          narrow(kept, &dx[at + j]);
          dbias[from + j] += kept;
        }
      }
    }
  });
}

// probabilities = softmax(scores * scale + mask's bias), and what dropout leaves of them. One row a query.
template <class T>
void attention(const T* scores, const float* bias, const int64_t* seed, float rate, float scale, T* probabilities,
               T* dropped, int64_t rows, int64_t rows_a_text, int64_t width) {
  for_rows(rows, width, [=](Rows mine) {
    Mask mask(seed, rate);
    std::vector<float> row(width);
    for (int64_t r = mine.begin; r < mine.end; ++r) {
      float* values = row.data();
      const float* bias_of_text = bias + r / rows_a_text * width;
      float largest = -INFINITY, sum = 0.0f;
#pragma omp simd reduction(max : largest)
      for (int64_t j = 0; j < width; ++j) {
        values[j] = wide(scores[r * width + j]) * scale + bias_of_text[j];
        largest = std::max(largest, values[j]);
      }
#pragma omp simd reduction(+ : sum)
      for (int64_t j = 0; j < width; ++j) {
        values[j] = exponential(values[j] - largest);
        sum += values[j];
      }
      const float share = 1.0f / sum;
      for (int64_t from = 0; from < width; from += Mask::kBlock) {
        const int64_t at = r * width + from, count = std::min(Mask::kBlock, width - from);
        const uint16_t* lanes = mask.lanes(at, count);
#pragma omp simd
        for (int64_t j = 0; j < count; ++j) {
          const float value = rounded<T>(values[from + j] * share);
          narrow(value, &probabilities[at + j]);
          narrow(value * mask.factor(lanes[j]), &dropped[at + j]);
        }
      }
    }
  });
}

template <class T>
void attention_grad(const T* probabilities, const T* dy, const int64_t* seed, float rate, float scale, T* dscores,
                    int64_t rows, int64_t width) {
  for_rows(rows, width, [=](Rows mine) {
    Mask mask(seed, rate);
    std::vector<float> row(width);
    for (int64_t r = mine.begin; r < mine.end; ++r) {
      float* slope = row.data();
      float inner = 0.0f;
      for (int64_t from = 0; from < width; from += Mask::kBlock) {
        const int64_t at = r * width + from, count = std::min(Mask::kBlock, width - from);
        const uint16_t* lanes = mask.lanes(at, count);
        float part = 0.0f;
#pragma omp simd reduction(+ : part)
        for (int64_t j = 0; j < count; ++j) {
          slope[from + j] = wide(dy[at + j]) * mask.factor(lanes[j]);
          part += slope[from + j] * wide(probabilities[at + j]);
        }
        inner += part;
      }
#pragma omp simd
      for (int64_t j = 0; j < width; ++j)
        narrow(wide(probabilities[r * width + j]) * (slope[j] - inner) * scale, &dscores[r * width + j]);
    }
  });
}

// x (batch * length, 3 * heads * size) + bias, cut into query, key and value (batch, heads, length, size).
template <class T>
void split_heads(const T* x, const float* bias, T* const parts[3], int64_t batch, int64_t length, int64_t heads,
                 int64_t size) {
  const int64_t hidden = heads * size;
  for_rows(batch * length, 3 * hidden, [=](Rows mine) {
    for (int64_t r = mine.begin; r < mine.end; ++r) {
      const int64_t text = r / length, token = r % length;
      for (int64_t head = 0; head < 3 * heads; ++head) {
        const T* from = x + r * 3 * hidden + head * size;
        T* to = parts[head / heads] + ((text * heads + head % heads) * length + token) * size;
#pragma omp simd
        for (int64_t j = 0; j < size; ++j) narrow(wide(from[j]) + bias[head * size + j], &to[j]);
      }
    }
  });
}

template <class T>
void split_heads_grad(const T* const parts[3], T* dx, float* dbias, int64_t batch, int64_t length, int64_t heads,
                      int64_t size) {
  const int64_t hidden = heads * size;
  sum_rows(batch * length, 3 * hidden, 3 * hidden, dbias, [=](Rows mine, float* sums) {
    for (int64_t r = mine.begin; r < mine.end; ++r) {
      const int64_t text = r / length, token = r % length;
      for (int64_t head = 0; head < 3 * heads; ++head) {
        const T* from = parts[head / heads] + ((text * heads + head % heads) * length + token) * size;
        T* to = dx + r * 3 * hidden + head * size;
#pragma omp simd
        for (int64_t j = 0; j < size; ++j) {
          to[j] = from[j];
          sums[head * size + j] += wide(from[j]);
        }
      }
    }
  });
}

// ---- What TensorFlow sees ------------------------------------------------------------------------------------------

struct Attributes {
  float rate = 0.0f, epsilon = 0.0f, scale = 1.0f;
};

void* create(TF_OpKernelConstruction* construction) {
  auto* attributes = new Attributes;
  TF_Status* status = TF_NewStatus();
  TF_OpKernelConstruction_GetAttrFloat(construction, "rate", &attributes->rate, status);
  TF_OpKernelConstruction_GetAttrFloat(construction, "epsilon", &attributes->epsilon, status);
  TF_OpKernelConstruction_GetAttrFloat(construction, "scale", &attributes->scale, status);
  TF_DeleteStatus(status);  // an operation has those that its formula has
  return attributes;
}

void destroy(void* attributes) { delete static_cast<Attributes*>(attributes); }

using Shape = std::vector<int64_t>;

int64_t size_of(const Shape& shape) {
  int64_t size = 1;
  for (int64_t dimension : shape) size *= dimension;
  return size;
}

// One call of an operation: its tensors, freed at the end.
class Call {
 public:
  explicit Call(TF_OpKernelContext* context) : context_(context), status_(TF_NewStatus()) {}
  ~Call() {
    for (TF_Tensor* tensor : tensors_) TF_DeleteTensor(tensor);
    TF_DeleteStatus(status_);
  }

  template <class T>
  const T* input(int i, Shape* shape = nullptr) {
    TF_Tensor* tensor = nullptr;
    TF_GetInput(context_, i, &tensor, status_);
    tensors_.push_back(tensor);
    if (shape != nullptr)
      for (int d = 0; d < TF_NumDims(tensor); ++d) shape->push_back(TF_Dim(tensor, d));
    return static_cast<const T*>(TF_TensorData(tensor));
  }

  template <class T>
  T* output(int i, const Shape& shape) {
    TF_Tensor* tensor = TF_AllocateOutput(context_, i, TF_ExpectedOutputDataType(context_, i), shape.data(),
                                          shape.size(), size_of(shape) * sizeof(T), status_);
    if (TF_GetCode(status_) != TF_OK) {
      TF_OpKernelContext_Failure(context_, status_);
      return nullptr;
    }
    tensors_.push_back(tensor);
    return static_cast<T*>(TF_TensorData(tensor));
  }

 private:
  TF_OpKernelContext* context_;
  TF_Status* status_;
  std::vector<TF_Tensor*> tensors_;
};

template <class T>
void compute_bias_gelu(void*, TF_OpKernelContext* context) {
  Call call(context);
  Shape shape;
  const T* x = call.input<T>(0, &shape);
  const float* bias = call.input<float>(1);
  if (T* y = call.output<T>(0, shape)) bias_gelu(x, bias, y, shape[0], shape[1]);
}

template <class T>
void compute_bias_gelu_grad(void*, TF_OpKernelContext* context) {
  Call call(context);
  Shape shape;
  const T* x = call.input<T>(0, &shape);
  const float* bias = call.input<float>(1);
  const T* dy = call.input<T>(2);
  T* dx = call.output<T>(0, shape);
  float* dbias = call.output<float>(1, {shape[1]});
  if (dx && dbias) bias_gelu_grad(x, bias, dy, dx, dbias, shape[0], shape[1]);
}

template <class T>
void compute_dropout_add_norm(void* attributes, TF_OpKernelContext* context) {
  const auto& chosen = *static_cast<Attributes*>(attributes);
  Call call(context);
  Shape shape;
  const T* x = call.input<T>(0, &shape);
  const float* bias = call.input<float>(1);
  const T* residual = call.input<T>(2);
  const float* gamma = call.input<float>(3);
  const float* beta = call.input<float>(4);
  const int64_t* seed = call.input<int64_t>(5);
  T* y = call.output<T>(0, shape);
  T* added = call.output<T>(1, shape);
  float* stats = call.output<float>(2, {shape[0], 2});
  if (y && added && stats)
    dropout_add_norm(x, bias, residual, gamma, beta, seed, chosen.rate, chosen.epsilon, y, added, stats, shape[0],
                     shape[1]);
}

template <class T>
void compute_dropout_add_norm_grad(void* attributes, TF_OpKernelContext* context) {
  const auto& chosen = *static_cast<Attributes*>(attributes);
  Call call(context);
  Shape shape;
  const T* added = call.input<T>(0, &shape);
  const float* stats = call.input<float>(1);
  const float* gamma = call.input<float>(2);
  const T* dy = call.input<T>(3);
  const int64_t* seed = call.input<int64_t>(4);
  T* dx = call.output<T>(0, shape);
  T* dresidual = call.output<T>(1, shape);
  float* sums = call.output<float>(2, {3, shape[1]});
  if (dx && dresidual && sums)
    dropout_add_norm_grad(added, stats, gamma, dy, seed, chosen.rate, dx, dresidual, sums, shape[0], shape[1]);
}

template <class T>
void compute_attention(void* attributes, TF_OpKernelContext* context) {
  const auto& chosen = *static_cast<Attributes*>(attributes);
  Call call(context);
  Shape shape;  // batch, heads, queries, keys
  const T* scores = call.input<T>(0, &shape);
  const float* bias = call.input<float>(1);
  const int64_t* seed = call.input<int64_t>(2);
  T* probabilities = call.output<T>(0, shape);
  T* dropped = call.output<T>(1, shape);
  if (probabilities && dropped)
    attention(scores, bias, seed, chosen.rate, chosen.scale, probabilities, dropped, size_of(shape) / shape[3],
              shape[1] * shape[2], shape[3]);
}

template <class T>
void compute_attention_grad(void* attributes, TF_OpKernelContext* context) {
  const auto& chosen = *static_cast<Attributes*>(attributes);
  Call call(context);
  Shape shape;
  const T* probabilities = call.input<T>(0, &shape);
  const T* dy = call.input<T>(1);
  const int64_t* seed = call.input<int64_t>(2);
  if (T* dscores = call.output<T>(0, shape))
    attention_grad(probabilities, dy, seed, chosen.rate, chosen.scale, dscores, size_of(shape) / shape[3], shape[3]);
}

template <class T>
void compute_split_heads(void*, TF_OpKernelContext* context) {
  Call call(context);
  Shape shape;
  const T* x = call.input<T>(0, &shape);
  const float* bias = call.input<float>(1);
  const int32_t* sizes = call.input<int32_t>(2);  // length, heads
  const int64_t length = sizes[0], heads = sizes[1], size = shape[1] / 3 / heads, batch = shape[0] / length;
  T* parts[3];
  for (int i = 0; i < 3; ++i) parts[i] = call.output<T>(i, {batch, heads, length, size});
  if (parts[0] && parts[1] && parts[2]) split_heads(x, bias, parts, batch, length, heads, size);
}

template <class T>
void compute_split_heads_grad(void*, TF_OpKernelContext* context) {
  Call call(context);
  Shape shape;  // batch, heads, length, size
  const T* parts[3] = {call.input<T>(0, &shape), call.input<T>(1), call.input<T>(2)};
  const int64_t columns = 3 * shape[1] * shape[3];
  T* dx = call.output<T>(0, {shape[0] * shape[2], columns});
  float* dbias = call.output<float>(1, {columns});
  if (dx && dbias) split_heads_grad(parts, dx, dbias, shape[0], shape[2], shape[1], shape[3]);
}

struct Operation {
  const char* name;
  std::vector<const char*> inputs, outputs, attributes;
  void (*narrow)(void*, TF_OpKernelContext*);
  void (*full)(void*, TF_OpKernelContext*);
};

#define KERNELS(function) function<BFloat16>, function<float>

const std::vector<Operation>& operations() {
  static const auto* all = new std::vector<Operation>{
      {"BiasGelu", {"x: T", "bias: float"}, {"y: T"}, {}, KERNELS(compute_bias_gelu)},
      {"BiasGeluGrad",
       {"x: T", "bias: float", "dy: T"},
       {"dx: T", "dbias: float"},
       {},
       KERNELS(compute_bias_gelu_grad)},
      {"DropoutAddNorm",
       {"x: T", "bias: float", "residual: T", "gamma: float", "beta: float", "seed: int64"},
       {"y: T", "added: T", "stats: float"},
       {"rate: float", "epsilon: float"},
       KERNELS(compute_dropout_add_norm)},
      {"DropoutAddNormGrad",
       {"added: T", "stats: float", "gamma: float", "dy: T", "seed: int64"},
       {"dx: T", "dresidual: T", "sums: float"},
       {"rate: float"},
       KERNELS(compute_dropout_add_norm_grad)},
      {"Attention",
       {"scores: T", "bias: float", "seed: int64"},
       {"probabilities: T", "dropped: T"},
       {"rate: float", "scale: float"},
       KERNELS(compute_attention)},
      {"AttentionGrad",
       {"probabilities: T", "dy: T", "seed: int64"},
       {"dscores: T"},
       {"rate: float", "scale: float"},
       KERNELS(compute_attention_grad)},
      {"SplitHeads",
       {"x: T", "bias: float", "sizes: int32"},
       {"query: T", "key: T", "value: T"},
       {},
       KERNELS(compute_split_heads)},
      {"SplitHeadsGrad",
       {"dquery: T", "dkey: T", "dvalue: T"},
       {"dx: T", "dbias: float"},
       {},
       KERNELS(compute_split_heads_grad)},
  };
  return *all;
}

void register_operation(const Operation& operation, TF_Status* status) {
  const std::string name = std::string("TfFinetune") + operation.name;
  TF_OpDefinitionBuilder* definition = TF_NewOpDefinitionBuilder(name.c_str());
  TF_OpDefinitionBuilderAddAttr(definition, "T: {bfloat16, float}");
  for (const char* input : operation.inputs) TF_OpDefinitionBuilderAddInput(definition, input);
  for (const char* output : operation.outputs) TF_OpDefinitionBuilderAddOutput(definition, output);
  for (const char* attribute : operation.attributes) TF_OpDefinitionBuilderAddAttr(definition, attribute);
  TF_OpDefinitionBuilderSetShapeInferenceFunction(definition, TF_ShapeInferenceContextSetUnknownShape);
  TF_RegisterOpDefinition(definition, status);
  const std::pair<TF_DataType, void (*)(void*, TF_OpKernelContext*)> kernels[] = {{TF_BFLOAT16, operation.narrow},
                                                                                  {TF_FLOAT, operation.full}};
  for (const auto& [type, compute] : kernels) {
    TF_KernelBuilder* builder = TF_NewKernelBuilder(name.c_str(), "CPU", create, compute, destroy);
    TF_KernelBuilder_TypeConstraint(builder, "T", type, status);
    TF_RegisterKernelBuilder(name.c_str(), builder, status);
  }
}

[[maybe_unused]] const bool registered = [] {
  TF_Status* status = TF_NewStatus();
  for (const Operation& operation : operations()) register_operation(operation, status);
  TF_DeleteStatus(status);
  return true;
}();

}  // namespace
