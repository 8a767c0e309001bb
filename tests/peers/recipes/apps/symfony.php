<?php
// A Symfony application with the parts of its skeleton that the recipe needs.

use Symfony\Bundle\FrameworkBundle\FrameworkBundle;
use Symfony\Bundle\FrameworkBundle\Kernel\MicroKernelTrait;
use Symfony\Component\HttpFoundation\Request;
use Symfony\Component\HttpKernel\Kernel as BaseKernel;

require '/usr/share/php/Symfony/Bundle/FrameworkBundle/autoload.php';
require '/usr/share/php/Symfony/Component/Yaml/autoload.php';
require __DIR__ . '/src/Controller/NangoCallbackController.php';

class Kernel extends BaseKernel
{
    use MicroKernelTrait;

    public function registerBundles(): iterable
    {
        return [new FrameworkBundle()];
    }

    public function getProjectDir(): string
    {
        return __DIR__;
    }

    protected function configureContainer($container): void
    {
        $container->extension('framework', ['secret' => 'a secret']);
        $container->services()->load('App\\Controller\\', __DIR__ . '/src/Controller/')
            ->tag('controller.service_arguments')->autowire();
    }

    protected function configureRoutes($routes): void
    {
        $routes->import(__DIR__ . '/config/routes/nango_callback.yaml');
    }
}

$kernel = new Kernel('prod', false);
$request = Request::createFromGlobals();
$response = $kernel->handle($request);
$response->send();
$kernel->terminate($request, $response);
