// Bindings of ops on boxes.
#include <ATen/Context.h>
#include <ATen/ops/argsort.h>
#include <ATen/ops/where.h>

#include "bind/binding.h"
#include "nms.h"
#include "points_in_boxes.h"
#include "roi_pooling.h"
#include "rotated_iou.h"

namespace equilidar {
namespace {

Tensor membership(const Tensor& points, const Tensor& boxes) {
  const Tensor p = points.contiguous(), b = boxes.contiguous();
  Tensor inside = at::empty({b.size(0), p.size(0)}, p.options().dtype(at::kBool));
  AT_DISPATCH_FLOATING_TYPES(p.scalar_type(), "membership", [&] {
    EQL_RUN(p, membership, p.const_data_ptr<scalar_t>(), p.size(0), b.const_data_ptr<scalar_t>(), b.size(0),
            inside.mutable_data_ptr<bool>());
  });
  return inside;
}

std::tuple<Tensor, Tensor> points_in_boxes(const Tensor& points, const Tensor& point_offsets, const Tensor& boxes,
                                           const Tensor& box_offsets) {
  const Tensor p = points.contiguous(), po = point_offsets.contiguous(), b = boxes.contiguous(), bo = box_offsets.contiguous();
  Tensor first = at::empty({p.size(0)}, po.options()), counts = at::zeros({b.size(0)}, bo.options());
  AT_DISPATCH_FLOATING_TYPES(p.scalar_type(), "points_in_boxes", [&] {
    EQL_RUN(p, points_in_boxes, p.const_data_ptr<scalar_t>(), po.const_data_ptr<int64_t>(), p.size(0),
            b.const_data_ptr<scalar_t>(), bo.const_data_ptr<int64_t>(), po.size(0) - 1, first.mutable_data_ptr<int64_t>(),
            counts.mutable_data_ptr<int64_t>());
  });
  return {first, counts};
}

Tensor rotated_iou(const Tensor& a, const Tensor& b, bool volume) {
  const Tensor one = a.contiguous(), two = b.contiguous();
  Tensor iou = at::empty({one.size(0), two.size(0)}, one.options());
  AT_DISPATCH_FLOATING_TYPES(one.scalar_type(), "rotated_iou", [&] {
    EQL_RUN(one, rotated_iou, one.const_data_ptr<scalar_t>(), one.size(0), two.const_data_ptr<scalar_t>(), two.size(0),
            volume, iou.mutable_data_ptr<scalar_t>());
  });
  return iou;
}

Tensor rotated_iou_pairs(const Tensor& a, const Tensor& b, bool volume) {
  const Tensor one = a.contiguous(), two = b.contiguous();
  Tensor iou = at::empty({one.size(0)}, one.options());
  AT_DISPATCH_FLOATING_TYPES(one.scalar_type(), "rotated_iou_pairs", [&] {
    EQL_RUN(one, rotated_iou_pairs, one.const_data_ptr<scalar_t>(), two.const_data_ptr<scalar_t>(), one.size(0), volume,
            iou.mutable_data_ptr<scalar_t>());
  });
  return iou;
}

Tensor axis_aligned_iou(const Tensor& a, const Tensor& b) {
  const Tensor one = a.contiguous(), two = b.contiguous();
  Tensor iou = at::empty({one.size(0), two.size(0)}, one.options());
  AT_DISPATCH_FLOATING_TYPES(one.scalar_type(), "axis_aligned_iou", [&] {
    EQL_RUN(one, axis_aligned_iou, one.const_data_ptr<scalar_t>(), one.size(0), two.const_data_ptr<scalar_t>(), two.size(0),
            iou.mutable_data_ptr<scalar_t>());
  });
  return iou;
}

template <typename Rule>
Tensor nms(const Tensor& boxes, const Tensor& scores, const Tensor& groups, double threshold) {
  const Rule rule{threshold};
  const Tensor b = boxes.contiguous(), g = groups.contiguous();
  const Tensor order = at::argsort(scores, /*stable=*/true, /*dim=*/0, /*descending=*/true);
  const int64_t num = b.size(0);
  Tensor kept = at::empty({num}, order.options()), count = at::empty({1}, order.options());
#if defined(EQUILIDAR_WITH_CUDA)
  const int64_t bytes = b.is_cuda() ? nms_workspace_cuda(num) : 0;
#else
  const int64_t bytes = 0;
#endif
  Tensor workspace = at::empty({bytes}, b.options().dtype(at::kByte));
  AT_DISPATCH_FLOATING_TYPES(b.scalar_type(), "nms", [&] {
    EQL_RUN(b, nms, rule, b.const_data_ptr<scalar_t>(), order.const_data_ptr<int64_t>(), g.const_data_ptr<int64_t>(), num,
            workspace.mutable_data_ptr(), kept.mutable_data_ptr<int64_t>(), count.mutable_data_ptr<int64_t>());
  });
  // The one place where the host waits for a GPU: the size of the output.
  return kept.narrow(0, 0, count.item().toLong());
}

std::tuple<Tensor, Tensor> neighbor_max(const Tensor& features, const Tensor& rows) {
  const Tensor f = features.contiguous(), r = rows.contiguous();
  Tensor maximum = at::empty({r.size(0), f.size(1)}, f.options()), argument = at::empty({r.size(0), f.size(1)}, r.options());
  AT_DISPATCH_FLOATING_TYPES(f.scalar_type(), "neighbor_max", [&] {
    EQL_RUN(f, neighbor_max, f.const_data_ptr<scalar_t>(), f.size(0), f.size(1), r.const_data_ptr<int64_t>(), r.size(0),
            r.size(1), maximum.mutable_data_ptr<scalar_t>(), argument.mutable_data_ptr<int64_t>());
  });
  return {maximum, argument};
}

Tensor neighbor_max_backward(const Tensor& grad, const Tensor& argument, int64_t num_features) {
  const Tensor g = grad.contiguous(), from = argument.contiguous();
  if (g.is_cuda() && at::globalContext().deterministicAlgorithms()) {
    // Our kernel adds in no fixed order; PyTorch's sorts in this mode. One more row takes what belongs to none.
    const Tensor target = at::where(from.lt(0), num_features, from);
    return at::zeros({num_features + 1, g.size(1)}, g.options()).scatter_add_(0, target, g).narrow(0, 0, num_features);
  }
  Tensor grad_features = at::zeros({num_features, g.size(1)}, g.options());
  AT_DISPATCH_FLOATING_TYPES(g.scalar_type(), "neighbor_max_backward", [&] {
    EQL_RUN(g, neighbor_max_backward, g.const_data_ptr<scalar_t>(), from.const_data_ptr<int64_t>(), g.size(0), g.size(1),
            grad_features.mutable_data_ptr<scalar_t>());
  });
  return grad_features;
}

}  // namespace

EQL_REGISTER("membership", membership)
EQL_REGISTER("points_in_boxes", points_in_boxes)
EQL_REGISTER("rotated_iou", rotated_iou)
EQL_REGISTER("rotated_iou_pairs", rotated_iou_pairs)
EQL_REGISTER("axis_aligned_iou", axis_aligned_iou)
EQL_REGISTER("rotated_nms", nms<RotatedRule>)
EQL_REGISTER("axis_aligned_nms", nms<AxisAlignedRule>)
EQL_REGISTER("circle_nms", nms<CircleRule>)
EQL_REGISTER("neighbor_max", neighbor_max)
EQL_REGISTER("neighbor_max_backward", neighbor_max_backward)

}  // namespace equilidar
