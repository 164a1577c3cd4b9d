#include "points_in_boxes.h"

#include "parallel.h"

namespace equilidar {

template <typename T>
void membership_cpu(const T* points, int64_t num_points, const T* boxes, int64_t num_boxes, bool* inside) {
  parallel_for(num_boxes, 1, [&](int64_t row) {
    const PreparedBox<T> box = prepare_box(boxes + 7 * row);
    bool* const out = inside + row * num_points;
    for (int64_t i = 0; i < num_points; ++i) out[i] = contains(box, points + 3 * i);
  });
}

template void membership_cpu(const float*, int64_t, const float*, int64_t, bool*);
template void membership_cpu(const double*, int64_t, const double*, int64_t, bool*);

}  // namespace equilidar
