from rest_framework.exceptions import ValidationError


class StrictParametersMixin:
    """Refuses a URL parameter that is unknown, empty or given twice: a typo must never show an unfiltered list."""

    def initial(self, request, *args, **kwargs):
        super().initial(request, *args, **kwargs)
        if not hasattr(self, request.method.lower()):
            return  # a 405 follows
        known = self.known_parameters() if request.method in ("GET", "HEAD") else ()
        wrong = {}
        for name, values in request.query_params.lists():
            if name not in known:
                wrong[name] = ["There is no such parameter here."]
            elif len(values) > 1:
                wrong[name] = ["This parameter is given more than once."]
            elif not values[0]:
                wrong[name] = ["This parameter is empty."]
        if wrong:
            raise ValidationError(wrong)

    def known_parameters(self) -> set[str]:
        """What the view's list takes: the parameters of its filters and of its pages."""
        filterset = getattr(self, "filterset_class", None)
        paginator = getattr(self, "paginator", None)
        return {*(filterset.base_filters if filterset else ()), *(paginator.parameters if paginator else ())}
