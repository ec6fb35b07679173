// Multi-head attention of texts of one length, forward and backward; the scores stay in the cache.
#pragma once

#ifdef __AVX512BF16__
#include <immintrin.h>
#endif

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <type_traits>
#include <vector>

#include "dropout.h"
#include "numbers.h"
#include "threads.h"

namespace tf_finetune {

// Matrix products read 16 columns at a time, in units of 32 bits: a float, or two neighbours along the summed dimension
// in bfloat16 where the processor multiplies those. A matrix to the right is kept by units: (summed / step, columns).
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
#pragma omp simd
      for (int64_t j = 0; j < head.size; ++j) narrow(wide(source[j]) + (bias_here ? bias_here[j] : 0.0f), &row[j]);
    }
  }

  void turn() {  // 16 x 16 values at a time: whole cache lines on both sides
    for (int64_t i = 0; i < turned.width; i += 16)
      for (int64_t j = 0; j < rows.width; j += 16)
        for (int64_t b = 0; b < 16; ++b)
          for (int64_t a = 0; a < 16; ++a) turned.row(j + b)[i + a] = rows.row(i + a)[j + b];
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

constexpr int64_t kQueries = 48;  // computed at a time: their scores stay in the cache; whole tiles and whole pairs

// What is added to the scores of each key, and of keys that no query sees: loops over keys are of whole vectors.
inline std::vector<float> padded_mask(const float* mask, int64_t length) {
  std::vector<float> result(padded(length), -INFINITY);
  std::copy_n(mask, length, result.begin());
  return result;
}

// Over the keys of one query: e**(score * scale + bias - shift); returns the sum.
inline float exponentials(const float* scores, const float* bias, float scale, float shift, float* to, int64_t keys) {
  float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
  for (int64_t j = 0; j < keys; ++j) {
    to[j] = exponential(scores[j] * scale + bias[j] - shift);
    sum += to[j];
  }
  return sum;
}

inline float largest_score(const float* scores, const float* bias, float scale, int64_t keys) {
  float largest = -INFINITY;
#pragma omp simd reduction(max : largest)
  for (int64_t j = 0; j < keys; ++j) largest = std::max(largest, scores[j] * scale + bias[j]);
  return largest;
}

// A gradient (size, tokens) of one head to where its values stand; its sums over the tokens are added to `sums`.
template <class T>
void write_turned(const float* gradient, int64_t width, const Head& head, int64_t part, T* to, float* sums) {
  for (int64_t from = 0; from < head.size; from += 16) {
    const int64_t values = std::min<int64_t>(16, head.size - from);
    for (int64_t i = 0; i < head.length; ++i) {
      float row[16] = {};
      for (int64_t j = 0; j < values; ++j) row[j] = gradient[(from + j) * width + i];
      T* here = to + head.at(i, part, 3) + from;
#pragma omp simd
      for (int64_t j = 0; j < values; ++j) {
        narrow(row[j], &here[j]);
        sums[from + j] += row[j];
      }
    }
  }
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

// context = dropout(softmax(query key' * scale + mask)) value, of qkv (batch * length, 3 * hidden) + bias. `stats` are
// the largest score and the divisor of each query's softmax: the backward pass computes the rest again.
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
    key.turn();
    const auto keys = key.with_token_columns(), values = value.with_value_columns();
    Matrix<typename Unit::Value> kept(kQueries, wide_length);
    std::vector<float> scores(kQueries * wide_length), row(wide_length), result(kQueries * size);
    Mask dropout(seed, shape.rate, (head.index() + 1) * length * length + wide_length - length);
    const auto mask_here = padded_mask(mask + head.text * length, length);
    for (int64_t from = 0; from < length; from += kQueries) {
      const int64_t queries = std::min(kQueries, length - from);
      multiply<Unit>(query.rows.units(from), size / Unit::step, keys.data(), scores.data(), queries, wide_length,
                     size / Unit::step);
      for (int64_t i = 0; i < queries; ++i) {
        const float* scores_here = scores.data() + i * wide_length;
        const float largest = largest_score(scores_here, mask_here.data(), shape.scale, wide_length);
        const float sum = exponentials(scores_here, mask_here.data(), shape.scale, largest, row.data(), wide_length);
        const int64_t place = head.index() * length + from + i;
        stats[2 * place] = largest;
        stats[2 * place + 1] = sum;
        const float share = 1.0f / sum;
        for (int64_t k = 0; k < wide_length; k += Mask::kBlock) {
          const int64_t count = std::min(Mask::kBlock, wide_length - k);
          const uint16_t* lanes = dropout.lanes(place * length + k, count);
#pragma omp simd
          for (int64_t j = 0; j < count; ++j)
            narrow(row[k + j] * share * dropout.factor(lanes[j]), &kept.row(i)[k + j]);
        }
      }
      multiply<Unit>(kept.units(), wide_length / Unit::step, values.data(), result.data(), queries, size,
                     wide_length / Unit::step);
      for (int64_t i = 0; i < queries; ++i) {
        const float* result_here = result.data() + i * size;
        T* context_here = context + head.at(from + i, 0, 1);
#pragma omp simd
        for (int64_t j = 0; j < head.size; ++j) narrow(result_here[j], &context_here[j]);
      }
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
    for (auto* part : {&query, &key, &value, &upstream}) part->turn();
    const auto keys = key.with_token_columns(), values = value.with_token_columns();
    const auto keys_by_value = key.with_value_columns();
    Matrix<typename Unit::Value> kept(kQueries, wide_length), dscores(kQueries, wide_length);
    std::vector<uint32_t> right(kQueries / Unit::step * wide_length);
    std::vector<float> scores(kQueries * wide_length), dkept(kQueries * wide_length);
    std::vector<float> row(wide_length), slope(wide_length);
    std::vector<float> dquery(kQueries * size), dkey(head.size * wide_length), dvalue(head.size * wide_length);
    Mask dropout(seed, shape.rate, (head.index() + 1) * length * length + wide_length - length);
    const auto mask_here = padded_mask(mask + head.text * length, length);
    float* sums_here = sums.data() + head.index() * 3 * head.size;
    for (int64_t from = 0; from < length; from += kQueries) {
      const int64_t queries = std::min(kQueries, length - from), summed = padded(queries);
      multiply<Unit>(query.rows.units(from), size / Unit::step, keys.data(), scores.data(), queries, wide_length,
                     size / Unit::step);
      multiply<Unit>(upstream.rows.units(from), size / Unit::step, values.data(), dkept.data(), queries, wide_length,
                     size / Unit::step);
      for (int64_t i = 0; i < queries; ++i) {
        const int64_t place = head.index() * length + from + i;
        exponentials(scores.data() + i * wide_length, mask_here.data(), shape.scale, stats[2 * place], row.data(),
                     wide_length);
        const float share = 1.0f / stats[2 * place + 1];
        const float* dkept_here = dkept.data() + i * wide_length;
        float inner = 0.0f;
        for (int64_t k = 0; k < wide_length; k += Mask::kBlock) {
          const int64_t count = std::min(Mask::kBlock, wide_length - k);
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
        for (int64_t j = 0; j < wide_length; ++j)
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
      for (int64_t i = 0; i < queries; ++i) {
        const float* dquery_here = dquery.data() + i * size;
        T* dqkv_here = dqkv + head.at(from + i, 0, 3);
#pragma omp simd
        for (int64_t j = 0; j < head.size; ++j) {
          narrow(dquery_here[j], &dqkv_here[j]);
          sums_here[j] += dquery_here[j];
        }
      }
    }
    write_turned(dkey.data(), wide_length, head, 1, dqkv, sums_here + head.size);
    write_turned(dvalue.data(), wide_length, head, 2, dqkv, sums_here + 2 * head.size);
  });
  const int64_t hidden = shape.heads * shape.size;
  std::fill_n(dbias, 3 * hidden, 0.0f);
  for (int64_t i = 0; i < shape.batch * shape.heads; ++i)
    for (int64_t part = 0; part < 3; ++part)
      for (int64_t j = 0; j < shape.size; ++j)
        dbias[part * hidden + i % shape.heads * shape.size + j] += sums[(i * 3 + part) * shape.size + j];
}

}  // namespace tf_finetune
