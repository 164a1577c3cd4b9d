// Overlap of oriented boxes: see equilidar/ops/rotated_iou.py, whose formulas these are, all in double.
#pragma once

#include "portable.h"

namespace equilidar {

// A box with what does not depend on its partner computed once. Negative extents are taken as they are.
struct OverlapBox {
  double x, y, z, half_length, half_width, half_height, yaw, cos_yaw, sin_yaw, area, volume, radius;
};

// Rows are x, y, z, length, width, height, yaw.
template <typename T>
EQL_HD OverlapBox prepare_overlap(const T* box) {
  const double length = box[3], width = box[4], height = box[5], yaw = box[6], area = length * width;
  return {box[0],    box[1],         box[2],         length / 2, width / 2, height / 2,
          yaw,       cos(yaw),       sin(yaw),       area,       area * height, std::sqrt(length * length + width * width) / 2};
}

// Whether the circumscribed circles meet. Rounding may not lose a pair that just touches; one too many costs nothing.
EQL_HD bool circles_meet(double dx, double dy, double radii) {
  const double reach = radii * (1 + 1e-9);
  return dx * dx + dy * dy <= reach * reach;
}

// near[k] = whether the circle of a box meets circle k. All pairs pass here: no branch and no aliasing, so that it runs
// in vector registers.
template <typename Box>
inline void circles_that_meet(const Box& box, const double* __restrict x, const double* __restrict y,
                              const double* __restrict radius, int64_t num, uint8_t* __restrict near) {
  const double box_x = box.x, box_y = box.y, box_radius = box.radius;
  for (int64_t k = 0; k < num; ++k) near[k] = circles_meet(x[k] - box_x, y[k] - box_y, radius[k] + box_radius);
}

// Mean of max(0, v) for v running evenly from p to q, without cancellation.
EQL_HD double mean_excess(double p, double q) {
  const double high = max_of(p, q), low = min_of(p, q);
  if (low >= 0) return (p + q) / 2;
  return high > 0 ? high * high / max_of(2 * (high - low), 1e-300) : 0.0;
}

EQL_HD double clamp(double v, double low, double high) { return min_of(max_of(v, low), high); }

// Linear interpolation, exact at both ends.
EQL_HD double between(double p, double q, double weight) {
  return weight < 0.5 ? p + weight * (q - p) : q - (1 - weight) * (q - p);
}

// The area that b shares with a: in a's frame, minus the sum over b's edges of the integral of y dx, x and y clamped to
// a's rectangle. The reference explains why.
EQL_HD double bev_overlap(const OverlapBox& a, const OverlapBox& b) {
  const double dx = b.x - a.x, dy = b.y - a.y;
  const double x = dx * a.cos_yaw + dy * a.sin_yaw, y = dy * a.cos_yaw - dx * a.sin_yaw;
  const double turn = b.yaw - a.yaw, cos_turn = cos(turn), sin_turn = sin(turn);
  // Half of b's length and width as vectors.
  const double length_x = b.half_length * cos_turn, length_y = b.half_length * sin_turn;
  const double width_x = -b.half_width * sin_turn, width_y = b.half_width * cos_turn;
  const double corner_x[5] = {x + length_x + width_x, x - length_x + width_x, x - length_x - width_x,
                              x + length_x - width_x, x + length_x + width_x};
  const double corner_y[5] = {y + length_y + width_y, y - length_y + width_y, y - length_y - width_y,
                              y + length_y - width_y, y + length_y + width_y};
  double area = 0;
  for (int edge = 0; edge < 4; ++edge) {
    const double x0 = corner_x[edge], x1 = corner_x[edge + 1], y0 = corner_y[edge], y1 = corner_y[edge + 1];
    const double left = clamp(x0, -a.half_length, a.half_length), right = clamp(x1, -a.half_length, a.half_length);
    if (left == right) continue;
    const double run = x1 - x0;
    const double y_left = between(y0, y1, clamp((left - x0) / run, 0, 1));
    const double y_right = between(y0, y1, clamp((right - x0) / run, 0, 1));
    const double above = mean_excess(y_left - a.half_width, y_right - a.half_width);
    const double below = mean_excess(-a.half_width - y_left, -a.half_width - y_right);
    area += ((y_left + y_right) / 2 - above + below) * (left - right);
  }
  return max_of(area, 0.0);
}

// Length that two intervals share whose centers are `shift` apart; not a number where the shift is not.
EQL_HD double shared_length(double shift, double half_a, double half_b) {
  return max_of(min_of(shift + half_b, half_a) - max_of(shift - half_b, -half_a), 0.0);
}

EQL_HD double height_overlap(const OverlapBox& a, const OverlapBox& b) {
  return shared_length(b.z - a.z, a.half_height, b.half_height);
}

// Boxes without extent overlap nothing, themselves included; nor does what is not a number.
EQL_HD double overlap_ratio(double overlap, double together) {
  const double both = together - overlap;
  return both > 0 ? clamp(overlap / both, 0, 1) : 0.0;
}

EQL_HD double iou_of_pair(const OverlapBox& a, const OverlapBox& b, bool volume) {
  const double overlap = bev_overlap(a, b);
  if (volume) return overlap_ratio(overlap * height_overlap(a, b), a.volume + b.volume);
  return overlap_ratio(overlap, a.area + b.area);
}

// A box turned to the nearest axis, seen from above, in the dtype of the boxes as in the reference.
template <typename T>
struct AlignedBox {
  T low_x, low_y, high_x, high_y, area;
};

template <typename T>
EQL_HD AlignedBox<T> prepare_aligned(const T* box) {
  const T half_turn = static_cast<T>(3.141592653589793), quarter_turn = half_turn / 2;
  T folded = std::fmod(box[6] + quarter_turn, half_turn);
  if (folded < 0) folded += half_turn;
  const bool along_x = std::abs(folded - quarter_turn) < quarter_turn / 2;
  const T half_x = (along_x ? box[3] : box[4]) / 2, half_y = (along_x ? box[4] : box[3]) / 2;
  AlignedBox<T> aligned = {box[0] - half_x, box[1] - half_y, box[0] + half_x, box[1] + half_y, 0};
  aligned.area = (aligned.high_x - aligned.low_x) * (aligned.high_y - aligned.low_y);
  return aligned;
}

template <typename T>
EQL_HD T aligned_iou(const AlignedBox<T>& a, const AlignedBox<T>& b) {
  const T width = max_of<T>(min_of(a.high_x, b.high_x) - max_of(a.low_x, b.low_x), 0);
  const T height = max_of<T>(min_of(a.high_y, b.high_y) - max_of(a.low_y, b.low_y), 0);
  const T overlap = width * height;
  return overlap / max_of<T>(a.area + b.area - overlap, static_cast<T>(1e-6));
}

// iou is (num_a, num_b).
template <typename T>
void rotated_iou_cpu(const T* a, int64_t num_a, const T* b, int64_t num_b, bool volume, T* iou);
template <typename T>
void rotated_iou_cuda(const T* a, int64_t num_a, const T* b, int64_t num_b, bool volume, T* iou, Stream stream);

// Row i with row i; iou is (num).
template <typename T>
void rotated_iou_pairs_cpu(const T* a, const T* b, int64_t num, bool volume, T* iou);
template <typename T>
void rotated_iou_pairs_cuda(const T* a, const T* b, int64_t num, bool volume, T* iou, Stream stream);

// iou is (num_a, num_b).
template <typename T>
void axis_aligned_iou_cpu(const T* a, int64_t num_a, const T* b, int64_t num_b, T* iou);
template <typename T>
void axis_aligned_iou_cuda(const T* a, int64_t num_a, const T* b, int64_t num_b, T* iou, Stream stream);

}  // namespace equilidar
