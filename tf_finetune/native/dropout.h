// Which values dropout keeps.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "threads.h"

namespace tf_finetune {

// Which values of a tensor are kept: 16 bits of Threefry 4x32-12 (Salmon et al. 2011) a value, by its place in it.
class Mask {
 public:
  static constexpr int kCounters = 64;               // of the generator, side by side
  static constexpr int64_t kBlock = 8 * kCounters;   // values that these are enough for
  static constexpr int64_t kBuffer = 16 * kBlock;    // values kept at hand

  // Of the values before `end` alone: none are drawn for what comes after it.
  Mask(const int64_t* seed, float rate, int64_t end)
      : key_{static_cast<uint32_t>(seed[0]), static_cast<uint32_t>(seed[1])},
        dropped_(static_cast<int32_t>(std::lround(rate * 65536.0f))),
        end_(end),
        scale(65536.0f / (65536.0f - dropped_)) {}

  // The lanes of `count` values from `first` on; valid until the next call. At most kBuffer - kBlock of them.
  const uint16_t* lanes(int64_t first, int64_t count) {
    const int64_t block = first / kBlock;
    if (first < have_.begin || first + count > have_.end) {
      const int64_t blocks = std::min(kBuffer / kBlock, (end_ + kBlock - 1) / kBlock - block);
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
  int64_t end_;

 public:
  float scale;

 private:
  Rows have_{0, 0};
  alignas(64) uint16_t lanes_[kBuffer];
};

}  // namespace tf_finetune
