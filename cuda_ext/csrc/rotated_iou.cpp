#include "rotated_iou.h"

#include <algorithm>
#include <vector>

#include "parallel.h"

namespace equilidar {
namespace {

// Threads pay from a few milliseconds on.
constexpr int64_t kCirclesPerChunk = 1 << 20;
constexpr int64_t kPairsPerChunk = 1 << 13;

template <typename T>
std::vector<OverlapBox> prepare_all(const T* boxes, int64_t num) {
  std::vector<OverlapBox> prepared(num);
  parallel_for(num, kPairsPerChunk, [&](int64_t i) { prepared[i] = prepare_overlap(boxes + 7 * i); });
  return prepared;
}

}  // namespace

template <typename T>
void rotated_iou_cpu(const T* a, int64_t num_a, const T* b, int64_t num_b, bool volume, T* iou) {
  const std::vector<OverlapBox> prepared_b = prepare_all(b, num_b);
  // By coordinate, so that the loop over circles, which sees all pairs, runs in vector registers.
  std::vector<double> x(num_b), y(num_b), radius(num_b);
  for (int64_t j = 0; j < num_b; ++j) {
    x[j] = prepared_b[j].x;
    y[j] = prepared_b[j].y;
    radius[j] = prepared_b[j].radius;
  }
  parallel_chunks(num_a, max_of<int64_t>(1, kCirclesPerChunk / max_of<int64_t>(num_b, 1)), [&](int64_t begin, int64_t end) {
    std::vector<uint8_t> near(num_b);
    for (int64_t i = begin; i < end; ++i) {
      const OverlapBox box = prepare_overlap(a + 7 * i);
      circles_that_meet(box, x.data(), y.data(), radius.data(), num_b, near.data());
      T* const out = iou + i * num_b;
      std::fill_n(out, num_b, T(0));
      const auto end_near = near.end();
      for (auto found = near.begin(); (found = std::find(found, end_near, 1)) != end_near; ++found) {
        const int64_t j = found - near.begin();
        out[j] = static_cast<T>(iou_of_pair(box, prepared_b[j], volume));
      }
    }
  });
}

template <typename T>
void rotated_iou_pairs_cpu(const T* a, const T* b, int64_t num, bool volume, T* iou) {
  parallel_for(num, kPairsPerChunk, [&](int64_t i) {
    iou[i] = static_cast<T>(iou_of_pair(prepare_overlap(a + 7 * i), prepare_overlap(b + 7 * i), volume));
  });
}

template <typename T>
void axis_aligned_iou_cpu(const T* a, int64_t num_a, const T* b, int64_t num_b, T* iou) {
  std::vector<AlignedBox<T>> aligned_b(num_b);
  for (int64_t j = 0; j < num_b; ++j) aligned_b[j] = prepare_aligned(b + 7 * j);
  parallel_for(num_a, max_of<int64_t>(1, kCirclesPerChunk / max_of<int64_t>(num_b, 1)), [&](int64_t i) {
    const AlignedBox<T> box = prepare_aligned(a + 7 * i);
    for (int64_t j = 0; j < num_b; ++j) iou[i * num_b + j] = aligned_iou(box, aligned_b[j]);
  });
}

#define EQL_INSTANTIATE(T)                                                                      \
  template void rotated_iou_cpu(const T*, int64_t, const T*, int64_t, bool, T*);                \
  template void rotated_iou_pairs_cpu(const T*, const T*, int64_t, bool, T*);                   \
  template void axis_aligned_iou_cpu(const T*, int64_t, const T*, int64_t, T*);
EQL_INSTANTIATE(float)
EQL_INSTANTIATE(double)
#undef EQL_INSTANTIATE

}  // namespace equilidar
