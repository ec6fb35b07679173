// The passes of a training step that TensorFlow makes one small operation at a time, each in one pass over memory.
//
// On TensorFlow's C API, which stays the same from version to version; built and called by compiled.py, with the formulas
// in bert/kernels.py. Activations (T) are bfloat16 or float32, all arithmetic is float32. The results do not depend on the
// number of threads: rows are cut into pieces by their number alone, and sums over rows add the pieces in order.

#include <sched.h>
#ifdef __SSE2__
#include <immintrin.h>
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
#include <type_traits>
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
  alignas(64) uint16_t lanes_[kBuffer] = {};
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

// ---- Attention -----------------------------------------------------------------------------------------------------

// Matrix products read 16 columns at a time, in units of 32 bits: a float, or two neighbours along the summed dimension
// in bfloat16 where the processor multiplies those. So a matrix to the right is kept by units: (summed / step, columns).
typedef float Lanes __attribute__((vector_size(64), aligned(4)));

struct Single {
  using Value = float;
  static constexpr int step = 1;
  static inline Lanes add(Lanes sum, uint32_t left, Lanes right) { return sum + of_bits(left) * right; }
};

#ifdef __AVX512BF16__
struct Pair {
  using Value = BFloat16;
  static constexpr int step = 2;
  static inline Lanes add(Lanes sum, uint32_t left, Lanes right) {
    return _mm512_dpbf16_ps(sum, (__m512bh)_mm512_set1_epi32(left), (__m512bh)(__m512)right);
  }
};
template <class T>
using UnitOf = std::conditional_t<std::is_same_v<T, BFloat16>, Pair, Single>;
#else
template <class T>
using UnitOf = Single;
#endif

template <class Unit, int kRows, int kVectors>
inline void tile(const uint32_t* left, int64_t left_width, const uint32_t* right, int64_t right_width, float* to,
                 int64_t to_width, int64_t units, bool add) {
  Lanes sums[kRows][kVectors];
  for (int r = 0; r < kRows; ++r)
    for (int v = 0; v < kVectors; ++v)
      sums[r][v] = add ? *reinterpret_cast<const Lanes*>(to + r * to_width + 16 * v) : Lanes{};
  for (int64_t k = 0; k < units; ++k) {
    Lanes columns[kVectors];
    for (int v = 0; v < kVectors; ++v) columns[v] = *reinterpret_cast<const Lanes*>(right + k * right_width + 16 * v);
    for (int r = 0; r < kRows; ++r)
      for (int v = 0; v < kVectors; ++v) sums[r][v] = Unit::add(sums[r][v], left[r * left_width + k], columns[v]);
  }
  for (int r = 0; r < kRows; ++r)
    for (int v = 0; v < kVectors; ++v) *reinterpret_cast<Lanes*>(to + r * to_width + 16 * v) = sums[r][v];
}

template <class Unit, int kRows, int kVectors>
void columns_of(const uint32_t* left, int64_t left_width, const uint32_t* right, int64_t right_width, float* to,
                int64_t to_width, int64_t rows, int64_t units, bool add) {
  int64_t r = 0;
  for (; r + kRows <= rows; r += kRows)
    tile<Unit, kRows, kVectors>(left + r * left_width, left_width, right, right_width, to + r * to_width, to_width,
                                units, add);
  for (; r < rows; ++r)
    tile<Unit, 1, kVectors>(left + r * left_width, left_width, right, right_width, to + r * to_width, to_width, units,
                            add);
}

// to (rows, columns) = left (rows, units) x right (units, columns), or added to it; columns are a multiple of 16.
template <class Unit>
void multiply(const uint32_t* left, int64_t left_width, const uint32_t* right, float* to, int64_t rows, int64_t columns,
              int64_t units, bool add = false) {
  int64_t c = 0;
  for (; c + 64 <= columns; c += 64)
    columns_of<Unit, 6, 4>(left, left_width, right + c, columns, to + c, columns, rows, units, add);
  for (; c + 32 <= columns; c += 32)
    columns_of<Unit, 12, 2>(left, left_width, right + c, columns, to + c, columns, rows, units, add);
  for (; c < columns; c += 16)
    columns_of<Unit, 12, 1>(left, left_width, right + c, columns, to + c, columns, rows, units, add);
}

// Values of a matrix (rows, width) by units along the width, or along the rows.
template <class Value>
class Matrix {
 public:
  Matrix(int64_t rows, int64_t width) : width(width), values_(rows * width) {}
  Value* row(int64_t r) { return values_.data() + r * width; }
  const uint32_t* units(int64_t r = 0) { return reinterpret_cast<const uint32_t*>(row(r)); }
  const int64_t width;

 private:
  std::vector<Value> values_;
};

// Two rows at a time into pairs of neighbours along the rows.
inline void by_row_units(Matrix<BFloat16>& from, int64_t rows, uint32_t* to) {
  for (int64_t r = 0; r < rows; r += 2) {
    const BFloat16 *first = from.row(r), *second = from.row(r + 1);
#pragma omp simd
    for (int64_t j = 0; j < from.width; ++j)
      to[r / 2 * from.width + j] = first[j].bits | static_cast<uint32_t>(second[j].bits) << 16;
  }
}

inline void by_row_units(Matrix<float>& from, int64_t rows, uint32_t* to) {
  std::memcpy(to, from.row(0), rows * from.width * sizeof(float));
}

int64_t padded(int64_t size) { return (size + 15) / 16 * 16; }

// One head of one text: where its values stand in (batch * length, hidden * parts), and its place among all heads.
struct Head {
  int64_t text, head, heads, length, size;
  int64_t at(int64_t token, int64_t part, int64_t parts) const {
    return ((text * length + token) * parts + part) * heads * size + head * size;
  }
  int64_t index() const { return text * heads + head; }
};

// Query, key, value or a gradient of one head as (length, size), and turned as (size, length), all padded with zeros.
template <class Unit>
struct Part {
  using Value = typename Unit::Value;

  Part(const Head& head)
      : rows(padded(head.length), padded(head.size)), turned(padded(head.size), padded(head.length)) {}

  template <class T>
  void read(const T* from, const float* bias, const Head& head, int64_t part, int64_t parts) {
    const float* bias_here = bias == nullptr ? nullptr : bias + (part * head.heads + head.head) * head.size;
    for (int64_t i = 0; i < head.length; ++i) {
      const T* source = from + head.at(i, part, parts);
      Value* row = rows.row(i);
      for (int64_t j = 0; j < head.size; ++j) narrow(wide(source[j]) + (bias_here ? bias_here[j] : 0.0f), &row[j]);
    }
  }

  void turn(const Head& head) {
    for (int64_t j = 0; j < head.size; ++j) {
      Value* to = turned.row(j);
      for (int64_t i = 0; i < head.length; ++i) to[i] = rows.row(i)[j];
    }
  }

  // As a right-hand side whose columns are the tokens, or the values of a token.
  std::vector<uint32_t> with_token_columns() { return units(turned, padded(turned_rows())); }
  std::vector<uint32_t> with_value_columns() { return units(rows, padded(turned.width)); }

  Matrix<Value> rows, turned;

 private:
  int64_t turned_rows() const { return rows.width; }
  static std::vector<uint32_t> units(Matrix<Value>& matrix, int64_t summed) {
    std::vector<uint32_t> result(summed / Unit::step * matrix.width);
    by_row_units(matrix, summed, result.data());
    return result;
  }
};

constexpr int64_t kQueries = 32;  // computed at a time: their scores stay in the cache

// Over the keys of one query: e**(score * scale + bias - shift); returns the sum.
inline float exponentials(const float* scores, const float* bias, float scale, float shift, float* to, int64_t length) {
  float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
  for (int64_t j = 0; j < length; ++j) {
    to[j] = exponential(scores[j] * scale + bias[j] - shift);
    sum += to[j];
  }
  return sum;
}

inline float largest_score(const float* scores, const float* bias, float scale, int64_t length) {
  float largest = -INFINITY;
#pragma omp simd reduction(max : largest)
  for (int64_t j = 0; j < length; ++j) largest = std::max(largest, scores[j] * scale + bias[j]);
  return largest;
}

struct AttentionShape {
  int64_t batch, heads, length, size;
  float rate, scale;
};

void for_heads(const AttentionShape& shape, const std::function<void(const Head&)>& body) {
  workers().run(static_cast<int>(shape.batch * shape.heads), [&](int i) {
    body(Head{i / shape.heads, i % shape.heads, shape.heads, shape.length, shape.size});
  });
}

// context = dropout(softmax(query key' * scale + mask)) value, of qkv (batch * length, 3 * hidden) + bias. `stats` are the
// largest score and the divisor of each query's softmax: the backward pass computes the rest again.
template <class T>
void attention(const T* qkv, const float* bias, const float* mask, const int64_t* seed, const AttentionShape& shape,
               T* context, float* stats) {
  using Unit = UnitOf<T>;
  for_heads(shape, [=](const Head& head) {
    const int64_t length = head.length, wide_length = padded(length), size = padded(head.size);
    Part<Unit> query(head), key(head), value(head);
    query.read(qkv, bias, head, 0, 3);
    key.read(qkv, bias, head, 1, 3);
    value.read(qkv, bias, head, 2, 3);
    key.turn(head);
    const auto keys = key.with_token_columns(), values = value.with_value_columns();
    Matrix<typename Unit::Value> kept(kQueries, wide_length);
    std::vector<float> scores(kQueries * wide_length), row(length), result(kQueries * size);
    Mask dropout(seed, shape.rate);
    const float* mask_here = mask + head.text * length;
    for (int64_t from = 0; from < length; from += kQueries) {
      const int64_t queries = std::min(kQueries, length - from);
      multiply<Unit>(query.rows.units(from), size / Unit::step, keys.data(), scores.data(), queries, wide_length,
                     size / Unit::step);
      for (int64_t i = 0; i < queries; ++i) {
        const float* scores_here = scores.data() + i * wide_length;
        const float largest = largest_score(scores_here, mask_here, shape.scale, length);
        const float sum = exponentials(scores_here, mask_here, shape.scale, largest, row.data(), length);
        const int64_t place = head.index() * length + from + i;
        stats[2 * place] = largest;
        stats[2 * place + 1] = sum;
        const float share = 1.0f / sum;
        for (int64_t k = 0; k < length; k += Mask::kBlock) {
          const int64_t count = std::min(Mask::kBlock, length - k);
          const uint16_t* lanes = dropout.lanes(place * length + k, count);
#pragma omp simd
          for (int64_t j = 0; j < count; ++j)
            narrow(row[k + j] * share * dropout.factor(lanes[j]), &kept.row(i)[k + j]);
        }
      }
      multiply<Unit>(kept.units(), wide_length / Unit::step, values.data(), result.data(), queries, size,
                     wide_length / Unit::step);
      for (int64_t i = 0; i < queries; ++i)
        for (int64_t j = 0; j < head.size; ++j)
          narrow(result[i * size + j], &context[head.at(from + i, 0, 1) + j]);
    }
  });
}

// The gradient of qkv, and of its bias.
template <class T>
void attention_grad(const T* qkv, const float* bias, const float* mask, const float* stats, const T* dy,
                    const int64_t* seed, const AttentionShape& shape, T* dqkv, float* dbias) {
  using Unit = UnitOf<T>;
  std::vector<float> sums(shape.batch * shape.heads * 3 * shape.size);
  for_heads(shape, [=, &sums](const Head& head) {
    const int64_t length = head.length, wide_length = padded(length), size = padded(head.size);
    Part<Unit> query(head), key(head), value(head), upstream(head);
    query.read(qkv, bias, head, 0, 3);
    key.read(qkv, bias, head, 1, 3);
    value.read(qkv, bias, head, 2, 3);
    upstream.read(dy, nullptr, head, 0, 1);
    for (auto* part : {&query, &key, &value, &upstream}) part->turn(head);
    const auto keys = key.with_token_columns(), values = value.with_token_columns();
    const auto keys_by_value = key.with_value_columns();
    Matrix<typename Unit::Value> kept(kQueries, wide_length), dscores(kQueries, wide_length);
    std::vector<uint32_t> right(kQueries / Unit::step * wide_length);
    std::vector<float> scores(kQueries * wide_length), dkept(kQueries * wide_length), row(length), slope(length);
    std::vector<float> dquery(kQueries * size), dkey(head.size * wide_length), dvalue(head.size * wide_length);
    Mask dropout(seed, shape.rate);
    const float* mask_here = mask + head.text * length;
    float* sums_here = sums.data() + head.index() * 3 * head.size;
    for (int64_t from = 0; from < length; from += kQueries) {
      const int64_t queries = std::min(kQueries, length - from), summed = padded(queries);
      multiply<Unit>(query.rows.units(from), size / Unit::step, keys.data(), scores.data(), queries, wide_length,
                     size / Unit::step);
      multiply<Unit>(upstream.rows.units(from), size / Unit::step, values.data(), dkept.data(), queries, wide_length,
                     size / Unit::step);
      for (int64_t i = 0; i < queries; ++i) {
        const int64_t place = head.index() * length + from + i;
        exponentials(scores.data() + i * wide_length, mask_here, shape.scale, stats[2 * place], row.data(), length);
        const float share = 1.0f / stats[2 * place + 1];
        const float* dkept_here = dkept.data() + i * wide_length;
        float inner = 0.0f;
        for (int64_t k = 0; k < length; k += Mask::kBlock) {
          const int64_t count = std::min(Mask::kBlock, length - k);
          const uint16_t* lanes = dropout.lanes(place * length + k, count);
          float part = 0.0f;
#pragma omp simd reduction(+ : part)
          for (int64_t j = 0; j < count; ++j) {
            const float factor = dropout.factor(lanes[j]);
            row[k + j] *= share;
            slope[k + j] = dkept_here[k + j] * factor;
            narrow(row[k + j] * factor, &kept.row(i)[k + j]);
            part += slope[k + j] * row[k + j];
          }
          inner += part;
        }
#pragma omp simd
        for (int64_t j = 0; j < length; ++j)
          narrow(row[j] * (slope[j] - inner) * shape.scale, &dscores.row(i)[j]);
      }
      for (int64_t i = queries; i < summed; ++i) {  // an earlier block may have left something in these
        std::fill_n(kept.row(i), wide_length, typename Unit::Value{});
        std::fill_n(dscores.row(i), wide_length, typename Unit::Value{});
      }
      multiply<Unit>(dscores.units(), wide_length / Unit::step, keys_by_value.data(), dquery.data(), queries, size,
                     wide_length / Unit::step);
      by_row_units(dscores, summed, right.data());
      multiply<Unit>(query.turned.units() + from / Unit::step, wide_length / Unit::step, right.data(), dkey.data(),
                     head.size, wide_length, summed / Unit::step, from > 0);
      by_row_units(kept, summed, right.data());
      multiply<Unit>(upstream.turned.units() + from / Unit::step, wide_length / Unit::step, right.data(),
                     dvalue.data(), head.size, wide_length, summed / Unit::step, from > 0);
      for (int64_t i = 0; i < queries; ++i)
        for (int64_t j = 0; j < head.size; ++j) {
          narrow(dquery[i * size + j], &dqkv[head.at(from + i, 0, 3) + j]);
          sums_here[j] += dquery[i * size + j];
        }
    }
    for (int64_t i = 0; i < length; ++i)
      for (int64_t j = 0; j < head.size; ++j) {
        narrow(dkey[j * wide_length + i], &dqkv[head.at(i, 1, 3) + j]);
        narrow(dvalue[j * wide_length + i], &dqkv[head.at(i, 2, 3) + j]);
        sums_here[head.size + j] += dkey[j * wide_length + i];
        sums_here[2 * head.size + j] += dvalue[j * wide_length + i];
      }
  });
  const int64_t hidden = shape.heads * shape.size;
  std::fill_n(dbias, 3 * hidden, 0.0f);
  for (int64_t i = 0; i < shape.batch * shape.heads; ++i)
    for (int64_t part = 0; part < 3; ++part)
      for (int64_t j = 0; j < shape.size; ++j)
        dbias[part * hidden + i % shape.heads * shape.size + j] += sums[(i * 3 + part) * shape.size + j];
}

// ---- What TensorFlow sees ------------------------------------------------------------------------------------------

struct Attributes {
  float rate = 0.0f, epsilon = 0.0f;
  int32_t heads = 1;
};

void* create(TF_OpKernelConstruction* construction) {
  auto* attributes = new Attributes;
  TF_Status* status = TF_NewStatus();
  TF_OpKernelConstruction_GetAttrFloat(construction, "rate", &attributes->rate, status);
  TF_OpKernelConstruction_GetAttrFloat(construction, "epsilon", &attributes->epsilon, status);
  TF_OpKernelConstruction_GetAttrInt32(construction, "heads", &attributes->heads, status);
  TF_DeleteStatus(status);  // an operation has those that its formula has
  return attributes;
}

void destroy(void* attributes) { delete static_cast<Attributes*>(attributes); }

float scale_of(int64_t head_size) { return 1.0f / std::sqrt(static_cast<float>(head_size)); }

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
  Shape shape, masks;  // of qkv, and batch, 1, 1, length
  const T* qkv = call.input<T>(0, &shape);
  const float* bias = call.input<float>(1);
  const float* mask = call.input<float>(2, &masks);
  const int64_t* seed = call.input<int64_t>(3);
  const int64_t hidden = shape[1] / 3, size = hidden / chosen.heads;
  T* result = call.output<T>(0, {shape[0], hidden});
  float* stats = call.output<float>(1, {masks[0], chosen.heads, masks[3], 2});
  if (result && stats)
    attention(qkv, bias, mask, seed, {masks[0], chosen.heads, masks[3], size, chosen.rate, scale_of(size)}, result,
              stats);
}

template <class T>
void compute_attention_grad(void* attributes, TF_OpKernelContext* context) {
  const auto& chosen = *static_cast<Attributes*>(attributes);
  Call call(context);
  Shape shape, masks;
  const T* qkv = call.input<T>(0, &shape);
  const float* bias = call.input<float>(1);
  const float* mask = call.input<float>(2, &masks);
  const float* stats = call.input<float>(3);
  const T* dy = call.input<T>(4);
  const int64_t* seed = call.input<int64_t>(5);
  const int64_t size = shape[1] / 3 / chosen.heads;
  T* dqkv = call.output<T>(0, shape);
  float* dbias = call.output<float>(1, {shape[1]});
  if (dqkv && dbias)
    attention_grad(qkv, bias, mask, stats, dy, seed,
                   {masks[0], chosen.heads, masks[3], size, chosen.rate, scale_of(size)}, dqkv, dbias);
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
       {"qkv: T", "bias: float", "mask: float", "seed: int64"},
       {"context: T", "stats: float"},
       {"rate: float", "heads: int"},
       KERNELS(compute_attention)},
      {"AttentionGrad",
       {"qkv: T", "bias: float", "mask: float", "stats: float", "dy: T", "seed: int64"},
       {"dqkv: T", "dbias: float"},
       {"rate: float", "heads: int"},
       KERNELS(compute_attention_grad)},
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
